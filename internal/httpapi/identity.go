package httpapi

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"regexp"

	"github.com/google/uuid"
)

// callIDPattern matches the call IDs that are accepted from callers.
var callIDPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// identify returns the call's ID, which is the caller's X-Call-Id if that can be
// logged, and its traceparent.
func identify(r *http.Request) (id, trace string) {
	var room [uuidLength + traceLength]byte
	b := room[:0]
	given := r.Header.Get("X-Call-Id")
	if minted := given == "" || !callIDPattern.MatchString(given); minted {
		b = appendUUID(b)
	} else {
		id = given
	}
	n := len(b)
	text := string(appendTraceparent(b, r.Header.Get("Traceparent"))) // one allocation for both
	if n > 0 {
		id = text[:n]
	}
	return id, text[n:]
}

const uuidLength, traceLength = 36, 55

// appendUUID appends a random UUID (RFC 9562, version 4). It need not be secret, so it
// costs less than one that is.
func appendUUID(b []byte) []byte {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

var traceparentPattern = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)

// appendTraceparent continues the caller's trace (W3C Trace Context, version 00) with a
// span of our own, or begins a trace.
func appendTraceparent(b []byte, from string) []byte {
	const noTrace, noSpan = "00000000000000000000000000000000", "0000000000000000" // neither is valid
	b = append(b, "00-"...)
	flags := "00"
	var m []string
	if from != "" {
		m = traceparentPattern.FindStringSubmatch(from)
	}
	if m != nil && m[1] != noTrace && m[2] != noSpan {
		b = append(b, m[1]...)
		flags = m[3]
	} else {
		b = appendRandomHex(b)
		b = appendRandomHex(b)
	}
	b = append(b, '-')
	b = appendRandomHex(b)
	b = append(b, '-')
	return append(b, flags...)
}

// appendRandomHex appends 16 hexadecimal digits that are not all zero.
func appendRandomHex(b []byte) []byte {
	var raw [8]byte
	n := rand.Uint64() | 1
	for i := range raw {
		raw[i] = byte(n >> (8 * i))
	}
	return hex.AppendEncode(b, raw[:])
}
