package drivers

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestFilesHoldWhatADriverNeeds(t *testing.T) {
	for _, lang := range Langs() {
		folder, err := Files(lang)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		err = fs.WalkDir(folder, ".", func(path string, entry fs.DirEntry, err error) error {
			if !entry.IsDir() {
				names = append(names, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		command := Command(lang)
		if len(command) < 2 || !slices.Contains(names, command[len(command)-1]) || !slices.Contains(names, "Dockerfile") {
			t.Errorf("%s: the folder holds %v, the command is %v", lang, names, command)
		}
		for _, name := range names {
			if strings.Contains(name, "README") || strings.Contains(name, "test") || strings.Contains(name, "__pycache__") {
				t.Errorf("%s: %s does not belong into a sandbox", lang, name)
			}
		}
	}
}

func TestUnknownLanguage(t *testing.T) {
	_, err := Files("cobol")
	if err == nil || !strings.Contains(err.Error(), "cobol") || !strings.Contains(err.Error(), "node, python") {
		t.Errorf("error is %v, want one that names what there is", err)
	}
	if command, digest := Command("cobol"), Digest("cobol", "base"); command != nil || digest != "" {
		t.Errorf("command %v, digest %q for no language", command, digest)
	}
}

func TestDigestTellsImagesApart(t *testing.T) {
	seen := map[string]bool{}
	for _, lang := range Langs() {
		for _, base := range []string{"debian:trixie-slim", "debian:sid-slim"} {
			digest := Digest(lang, base)
			if !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(digest) || digest != Digest(lang, base) {
				t.Errorf("%s on %s: %q", lang, base, digest)
			}
			seen[digest] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("4 images have %d digests", len(seen))
	}
}
