// Package pages reads the documents of this repository for tests that check them: their
// tables, their fenced blocks, and the list of them.
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Root returns the path of the repository, relative to where the test runs.
func Root(t testing.TB) string {
	t.Helper()
	for root := ".."; len(root) < 30; root += "/.." {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return root
		}
	}
	t.Fatal("this test runs outside of the repository")
	return ""
}

// Read returns the content of a file, given its path in the repository.
func Read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(Root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Table returns the rows of the Markdown table that has that header.
func Table(t testing.TB, path string, header ...string) [][]string {
	t.Helper()
	_, rest, found := strings.Cut(Read(t, path), "\n| "+strings.Join(header, " | ")+" |\n|"+strings.Repeat("---|", len(header))+"\n")
	if !found {
		t.Fatalf("%s has no table | %s |", path, strings.Join(header, " | "))
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != len(header) {
			t.Fatalf("%s: %q has %d cells, not %d", path, line, len(cells), len(header))
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// Code returns all code in a cell.
func Code(cell string) string {
	inner, _ := strings.CutPrefix(cell, "`")
	inner, ok := strings.CutSuffix(inner, "`")
	if !ok {
		return "not code: " + cell
	}
	return inner
}

// Files returns the files of the repository.
func Files(t testing.TB) []string {
	t.Helper()
	var all []string
	root := Root(t)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || slices.Contains([]string{"build", "testdata", "node_modules", "__pycache__"}, entry.Name())) {
			return filepath.SkipDir
		}
		if entry.Type().IsRegular() {
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Markdown returns the Markdown files of the repository.
func Markdown(t testing.TB) []string {
	t.Helper()
	return slices.DeleteFunc(Files(t), func(path string) bool { return !strings.HasSuffix(path, ".md") })
}

// Documents returns the documents that users read: those at the top, and docs/.
func Documents(t testing.TB) []string {
	t.Helper()
	return slices.DeleteFunc(Markdown(t), func(path string) bool {
		return strings.Contains(path, "/") && !strings.HasPrefix(path, "docs/")
	})
}

// Block is a fenced block. Its kind and note are the words behind the fence.
// Readers see only the effect of the first:
//
//	sh               is run; a json, text or http block that follows is its output, where … stands for anything
//	sh soon          is run until the output is that
//	sh by-hand       is not run
//	python, js FILE  is the file that commands after it read
//	json file        is a file of JSON
//	text             elsewhere is a drawing, or what something looks like
//	ini              is a unit file
//	nginx, caddy, yaml  are for proxies: TestProxies runs the first two
type Block struct {
	At               string // page and line
	Kind, Note, Text string
}

// Fence is a fenced block of any kind.
var Fence = regexp.MustCompile("(?ms)^```.*?^```$")

var (
	block    = regexp.MustCompile("(?ms)^```(\\w+)(?: ([^\\s`]+))?\n(.*?)^```\n")
	indented = regexp.MustCompile(`\n\n {4}.*`)
)

// Blocks returns the blocks of a page.
func Blocks(t testing.TB, page string) []Block {
	t.Helper()
	text := Read(t, page)
	var blocks []Block
	for _, m := range block.FindAllStringSubmatchIndex(text, -1) {
		line := 1 + strings.Count(text[:m[0]], "\n")
		b := Block{At: fmt.Sprintf("%s, line %d", page, line), Kind: text[m[2]:m[3]], Text: text[m[6]:m[7]]}
		if m[4] >= 0 {
			b.Note = text[m[4]:m[5]]
		}
		blocks = append(blocks, b)
	}
	if fences := strings.Count(text, "```"); fences != 2*len(blocks) {
		t.Fatalf("%s has %d fences, and %d blocks were read: each needs a kind", page, fences, len(blocks))
	}
	if found := indented.FindString(Fence.ReplaceAllString(text, "")); found != "" {
		t.Errorf("%s has a block without a fence: %q", page, found)
	}
	return blocks
}

// Runs reports whether the block has commands to run.
func (b Block) Runs() bool {
	return b.Kind == "sh" && (b.Note == "" || b.Note == "soon")
}

// IsFile reports whether the block is a file that commands read.
func (b Block) IsFile() bool {
	return (b.Kind == "python" || b.Kind == "js") && b.Note != ""
}

// IsOutput reports whether the block is the output of a command.
func (b Block) IsOutput() bool {
	return b.Note == "" && (b.Kind == "json" || b.Kind == "text" || b.Kind == "http")
}
