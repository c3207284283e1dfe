// Package drivers embeds the language drivers: their sources, the Dockerfile of their
// image, and the command that starts them. contract/README.md says what a driver must
// do.
package drivers

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed python/Dockerfile python/driver.py python/fob/*.py
//go:embed node/Dockerfile node/driver.js node/lib/*.js
var files embed.FS

// Langs returns the languages that have a driver, sorted.
func Langs() []string { return []string{"node", "python"} }

// Files returns a driver's folder: its sources and its Dockerfile. For an unknown
// language the error names those that there are.
func Files(lang string) (fs.FS, error) {
	if !slices.Contains(Langs(), lang) {
		return nil, fmt.Errorf("there is no driver for %q; there are %s", lang, strings.Join(Langs(), ", "))
	}
	return fs.Sub(files, lang)
}

// Command returns the command line that starts a driver in a folder with its Files, for
// running it without an image. It is nil for an unknown language.
func Command(lang string) []string {
	switch lang {
	case "node":
		return []string{"node", "driver.js"}
	case "python":
		// -I makes Python ignore the environment and the folder's neighbours.
		return []string{"python3", "-I", "driver.py"}
	}
	return nil
}

// Digest returns the tag of a driver's image: 12 hexadecimal digits that change with
// the driver's files and with the name of its base image. It is empty for an unknown
// language.
func Digest(lang, base string) string {
	folder, err := Files(lang)
	if err != nil {
		return ""
	}
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%d %s\n", len(base), base) // writing to a hash never fails
	err = fs.WalkDir(folder, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(folder, path)
		_, _ = fmt.Fprintf(hash, "%d %s %d ", len(path), path, len(data))
		_, _ = hash.Write(data)
		return err
	})
	if err != nil {
		panic(err) // cannot happen: the files are part of the binary
	}
	return hex.EncodeToString(hash.Sum(nil))[:12]
}
