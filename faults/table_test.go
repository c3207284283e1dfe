package main

import (
	"os"
	"strings"
	"testing"
)

// The table of docs/inside/reliability.md has the rows of this program, and the place
// for what print writes.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/inside/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| row | fault |")
	table, rest, found := strings.Cut(table, "\n\n")
	if !found || strings.Count(rest, markerBegin) != 1 || strings.Count(rest, markerEnd) != 1 {
		t.Error("there is no table, or no place for the results behind it")
	}
	lines := strings.Split(table, "\n")[2:]
	if len(lines) != len(rows()) {
		t.Errorf("the table has %d rows, the program %d", len(lines), len(rows()))
	}
	for i, r := range rows()[:min(len(lines), len(rows()))] {
		want := "| `" + r.name + "` | " + r.fault + " | " + r.promise + " | "
		if how, is := strings.CutPrefix(lines[i], want); !is || len(how) < 5 {
			t.Errorf("the row is %s, want %s…", lines[i], want)
		}
	}
}
