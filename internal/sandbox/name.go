package sandbox

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
)

// The names of aviaries, and the IDs of instances.
var (
	aviaryPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,23}$`)
	idPattern     = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// CheckAviary returns what is wrong with an aviary's name, or nil. Names are short
// because they are part of the names of containers, networks and sockets.
func CheckAviary(name string) error {
	if aviaryPattern.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%q cannot be an aviary's name: set FOB_AVIARY to 1 to 24 letters, digits, _ and -, beginning with a letter or digit", name)
}

// NewID returns a random ID for an Instance.
func NewID() string { return randomHex(8) }

// IsID reports whether text could be the ID of an Instance.
func IsID(text string) bool { return idPattern.MatchString(text) }

// NewToken returns a new token for a driver to ask for on TCP: 256 random bits.
func NewToken() string { return randomHex(32) }

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
