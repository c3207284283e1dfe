// Package drivers holds the language drivers as they go into a sandbox: their
// sources, the Dockerfile of their image and the command that starts them.
// What a driver must do is in contract/README.md.
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

// Langs returns the languages that there is a driver for, sorted.
func Langs() []string { return []string{"node", "python"} }

// Files returns a driver's folder: its sources and its Dockerfile. A language
// that there is none for is an error that names those there are.
func Files(lang string) (fs.FS, error) {
	if !slices.Contains(Langs(), lang) {
		return nil, fmt.Errorf("there is no driver for %q; there are %s", lang, strings.Join(Langs(), ", "))
	}
	return fs.Sub(files, lang)
}

// Command returns the command line that starts a driver in a folder that holds
// its Files, for running it without an image. It is nil for an unknown
// language.
func Command(lang string) []string {
	switch lang {
	case "node":
		return []string{"node", "driver.js"}
	case "python":
		// -I keeps the environment and the folder's neighbours out.
		return []string{"python3", "-I", "driver.py"}
	}
	return nil
}

// Digest returns 12 hexadecimal digits that change when a driver's files or
// the name of its base image do: the tag of its image. It is empty for an
// unknown language.
func Digest(lang, base string) string {
	folder, err := Files(lang)
	if err != nil {
		return ""
	}
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%d %s\n", len(base), base) // a hash never fails to be written
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
		panic(err) // the files are part of the binary
	}
	return hex.EncodeToString(hash.Sum(nil))[:12]
}
