package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestItems: words mean what they mean to HTTPie.
func TestItems(t *testing.T) {
	for word, want := range map[string][3]string{
		"a=1":            {"a", "=", "1"},
		"a:=1":           {"a", ":=", "1"},
		"a==1":           {"a", "==", "1"},
		"X-A:b":          {"X-A", ":", "b"},
		"a@f":            {"a", "@", "f"},
		"@f":             {"", "@", "f"},
		"a=@f":           {"a", "=@", "f"},
		"a:=@f":          {"a", ":=@", "f"},
		"a=b:=c@d":       {"a", "=", "b:=c@d"},
		"u=http://x@y":   {"u", "=", "http://x@y"},
		`a\:b=c`:         {"a:b", "=", "c"},
		`a\\=c`:          {`a\`, "=", "c"},
		`a\b=c`:          {`a\b`, "=", "c"},
		"Host:x:1":       {"Host", ":", "x:1"},
		"a=":             {"a", "=", ""},
		"=1":             {"", "=", "1"},
		"nothing":        {"nothing", "", ""},
		`\@nothing`:      {`\@nothing`, "", ""},
		"q==a=b":         {"q", "==", "a=b"},
		`a:={"b": "=@"}`: {"a", ":=", `{"b": "=@"}`},
	} {
		if name, separator, value := splitItem(word); [3]string{name, separator, value} != want {
			t.Errorf("%s is %q %q %q, want %q", word, name, separator, value, want)
		}
	}
}

// TestItemsThatAreWrong are refused in words that help, before anything is sent.
func TestItemsThatAreWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"nothing":      "name=text",
		"=1":           "name=text",
		"a:=x":         "a=…",
		"a:=":          "not JSON",
		"a:=@" + file:  "not JSON",
		"a=@/no/such":  "no such file",
		"a=1 a=2":      "twice",
		"@x @y":        "already",
		"@x a=1":       "whole body",
		"@x b@y":       "whole body",
		"a:=1 a=@none": "no such file",
	} {
		if _, err := readItems(strings.Fields(words)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", words, err, want)
		}
	}
}
