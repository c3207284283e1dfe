package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/pages"
)

// TestDocsSize: who looks for something does not want to read 400 lines.
func TestDocsSize(t *testing.T) {
	for _, document := range pages.Documents(t) {
		most := 400
		switch document {
		case "README.md":
			most = 150
		case "CHANGELOG.md":
			continue
		}
		if n := strings.Count(pages.Read(t, document), "\n"); n > most {
			t.Errorf("%s has %d lines, and may have %d", document, n, most)
		}
	}
}

var (
	codeSpan = regexp.MustCompile("`[^`\n]*`")
	link     = regexp.MustCompile(`\[([^\]\n]*)\]\(([^)\s]+)\)`)
)

// links returns where the links of a Markdown text lead.
func links(markdown string) []string {
	var all []string
	for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(pages.Fence.ReplaceAllString(markdown, ""), "`"), -1) {
		all = append(all, m[2])
	}
	return all
}

// TestDocsLinks follows the relative links of every Markdown file, to files
// and to headings.
func TestDocsLinks(t *testing.T) {
	followed := 0
	for _, document := range pages.Markdown(t) {
		for _, to := range links(pages.Read(t, document)) {
			target, anchor, _ := strings.Cut(to, "#")
			if strings.HasPrefix(target, "https://") {
				continue
			}
			followed++
			path := document
			if target != "" {
				path = filepath.Join(filepath.Dir(document), target)
			}
			if _, err := os.Stat(filepath.Join(pages.Root(t), path)); err != nil {
				t.Errorf("%s links to %s: %v", document, to, err)
			} else if anchor != "" && !slices.Contains(anchors(pages.Read(t, path)), anchor) {
				t.Errorf("%s links to %s, and %s has the headings %v", document, to, path, anchors(pages.Read(t, path)))
			}
		}
	}
	if followed < 150 {
		t.Errorf("only %d links were found", followed)
	}
}

// anchors makes of headings what GitHub makes of them.
func anchors(markdown string) []string {
	var all []string
	seen := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(pages.Fence.ReplaceAllString(markdown, ""), -1) {
		plain := strings.ToLower(link.ReplaceAllString(m[1], "$1"))
		anchor := strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(plain, ""), " ", "-")
		n := seen[anchor]
		if seen[anchor]++; n > 0 {
			anchor += "-" + strconv.Itoa(n)
		}
		all = append(all, anchor)
	}
	return all
}

// TestDocsIndex: docs/README.md lists every page.
func TestDocsIndex(t *testing.T) {
	var listed []string
	for _, to := range links(pages.Read(t, "docs/README.md")) {
		listed = append(listed, filepath.Join("docs", to))
	}
	for _, document := range pages.Documents(t) {
		if document != "docs/README.md" && strings.HasPrefix(document, "docs/") && !slices.Contains(listed, document) {
			t.Errorf("docs/README.md does not list %s", document)
		}
	}
}

// TestDocsNamed: the documents that code, scripts and messages name are there,
// and so are the files that documents name.
func TestDocsNamed(t *testing.T) {
	check := func(by, path string) {
		if _, err := os.Stat(filepath.Join(pages.Root(t), path)); err != nil {
			t.Errorf("%s names %s: %v", by, path, err)
		}
	}
	document := regexp.MustCompile(`\bdocs/[\w/-]+\.md\b`)
	for _, path := range pages.Files(t) {
		for _, name := range document.FindAllString(pages.Read(t, path), -1) {
			check(path, name)
		}
	}
	file := regexp.MustCompile("`((?:api|bench|cmd|drivers|e2e|examples|faults|internal|scripts)/[a-z][\\w./-]*)`")
	for _, path := range pages.Documents(t) {
		for _, m := range file.FindAllStringSubmatch(pages.Read(t, path), -1) {
			check(path, m[1])
		}
	}
}
