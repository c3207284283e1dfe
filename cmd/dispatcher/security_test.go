package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/pages"
)

// TestSecurityPromises: what SECURITY.md promises, a test proves; it is there.
func TestSecurityPromises(t *testing.T) {
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	err := filepath.WalkDir(pages.Root(t), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := pages.Table(t, "SECURITY.md", "promise", "test")
	if len(rows) < 20 {
		t.Errorf("there are only %d promises", len(rows))
	}
	for _, row := range rows {
		if row[0] == "" || !there[pages.Code(row[1])] {
			t.Errorf("%q is to be proved by %s, which there is not", row[0], row[1])
		}
	}
	// Those that the text names, too.
	for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(pages.Read(t, "SECURITY.md"), -1) {
		if !there[name[1]] {
			t.Errorf("SECURITY.md names %s, which there is not", name[1])
		}
	}
	if n := strings.Count(pages.Read(t, "SECURITY.md"), "\n"); n > 250 {
		t.Errorf("SECURITY.md has %d lines: too many to be read", n)
	}
}
