package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// languages are those of files, by how their names end.
var languages = map[string]string{".py": "python", ".js": "node", ".mjs": "node", ".cjs": "node"}

// source is a file with the code of a function.
type source struct {
	path string // or "-"
	name string // of the function
	lang string // or empty
}

// findSources returns the files that paths name. A folder stands for the files right in
// it that end like code. Each file is of another function.
func findSources(paths []string, name, lang string) ([]source, error) {
	var all []source
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case path == "-":
			if name == "" || len(paths) > 1 {
				return nil, errors.New("standard input is the code of one function: give --name")
			}
			all = append(all, source{path: "-", name: name, lang: lang})
			continue
		case err != nil:
			return nil, err
		case !info.IsDir():
			all = append(all, source{path: path})
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		before := len(all)
		for _, entry := range entries {
			_, code := languages[filepath.Ext(entry.Name())]
			if code && !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") && !strings.HasPrefix(entry.Name(), "_") {
				all = append(all, source{path: filepath.Join(path, entry.Name())})
			}
		}
		if len(all) == before {
			return nil, fmt.Errorf("the folder %s has no files that end with .py, .js, .mjs or .cjs", path)
		}
	}
	if name != "" && len(all) > 1 {
		return nil, fmt.Errorf("--name=%s is for one file, and there are %d", name, len(all))
	}
	return all, describe(all, name, lang)
}

// describe sets the names and languages of sources, and checks them.
func describe(all []source, name, lang string) error {
	from := map[string]string{} // path, by the function's name
	for i := range all {
		s := &all[i]
		ending := filepath.Ext(s.path)
		if s.name == "" {
			s.name = strings.TrimSuffix(filepath.Base(s.path), ending)
		}
		if name != "" {
			s.name = name
		}
		if s.lang = languages[ending]; lang != "" {
			s.lang = lang
		}
		if s.lang == "" && s.path != "-" {
			return fmt.Errorf("%s does not say in which language it is: give --lang", s.path)
		}
		if err := faas.CheckName(s.name); err != nil {
			return fmt.Errorf("%s: %w; --name gives another", s.path, err)
		}
		if other, twice := from[s.name]; twice {
			return fmt.Errorf("%s and %s would both be the function %s", other, s.path, s.name)
		}
		from[s.name] = s.path
	}
	return nil
}

// read returns the code.
func (s *source) read() (string, error) {
	var text []byte
	var err error
	if s.path == "-" {
		text, err = io.ReadAll(os.Stdin)
	} else {
		text, err = os.ReadFile(s.path)
	}
	if err != nil {
		return "", err
	}
	if err := faas.CheckCode(string(text)); err != nil { // JSON cannot carry everything
		return "", fmt.Errorf("%s: %w", s.path, err)
	}
	return string(text), nil
}
