package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// own makes folders, and a file at the end, of "NAME MODE[ OWNER][ GROUP]" lines.
func own(t *testing.T, root string, steps ...string) {
	t.Helper()
	modes := map[string]os.FileMode{"700": 0o700, "755": 0o755, "775": 0o775, "777": 0o777, "1777": 0o777 | os.ModeSticky, "600": 0o600, "664": 0o664, "666": 0o666}
	for _, step := range steps {
		f := strings.Fields(step)
		path := filepath.Join(root, f[0])
		var err error
		if strings.HasSuffix(f[0], ".file") {
			err = os.WriteFile(path, nil, 0o600)
		} else {
			err = os.Mkdir(path, 0o700)
		}
		if err == nil && len(f) > 2 {
			err = os.Chown(path, len(f[2]), len(f[len(f)-1])) // "x" is 1, "xx" 2
		}
		if err := errors.Join(err, os.Chmod(path, modes[f[1]])); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGuard(t *testing.T) {
	cases := map[string]struct {
		steps   []string
		link    string // at link, to it
		path    string
		owners  []int
		refused string // "" is not; ROOT stands for the test's folder
	}{
		"our own":                         {steps: []string{"a 755", "a/b 700"}, path: "a/b"},
		"a file":                          {steps: []string{"a 755", "a/b.file 600"}, path: "a/b.file"},
		"in a folder like /tmp":           {steps: []string{"a 1777", "a/b 700"}, path: "a/b"},
		"our group's way":                 {steps: []string{"a 775", "a/b 700"}, path: "a/b"},
		"anybody's":                       {steps: []string{"a 777"}, path: "a", refused: "chmod go-w ROOT/a,"},
		"our group's":                     {steps: []string{"a 775"}, path: "a"},
		"like /tmp itself":                {steps: []string{"a 1777"}, path: "a", refused: "chmod go-w ROOT/a,"},
		"anybody's file":                  {steps: []string{"a.file 666"}, path: "a.file", refused: "chmod go-w ROOT/a.file,"},
		"on anybody's way":                {steps: []string{"a 777", "a/b 700"}, path: "a/b", refused: "chmod go-w ROOT/a,"},
		"nothing on anybody's way":        {steps: []string{"a 777"}, path: "a/b/c", refused: "chmod go-w ROOT/a,"},
		"behind a link":                   {steps: []string{"a 755", "a/b 700"}, link: "a", path: "link/b"},
		"behind a link, to anybody's":     {steps: []string{"a 755", "a/b 777"}, link: "a/b", path: "link", refused: "chmod go-w ROOT/a/b,"},
		"behind a link, on anybody's way": {steps: []string{"a 777", "a/b 700", "a/b/c 700"}, link: "a/b", path: "link/c", refused: "chmod go-w ROOT/a,"},
		"behind a link with ..":           {steps: []string{"a 755", "d 777", "a/b 700"}, link: "d/../a", path: "link/b", refused: "chmod go-w ROOT/d,"},
		"behind a link that goes round":   {link: "link", path: "link/b", refused: syscall.ELOOP.Error()},
	}
	if os.Geteuid() == 0 {
		for name, c := range map[string]struct {
			steps   []string
			link    string
			path    string
			owners  []int
			refused string
		}{
			"another's, to root":                 {steps: []string{"a 755 x"}, path: "a"},
			"another's, in his own, to root":     {steps: []string{"a 755 x", "a/b 755 x"}, path: "a/b"},
			"another's file in root's":           {steps: []string{"a 755", "a/b.file 600 x"}, path: "a/b.file", owners: []int{0}, refused: "chown 0 ROOT/a/b.file,"},
			"the owner's file":                   {steps: []string{"a 755 x", "a/b.file 600 x"}, path: "a/b.file", owners: []int{1}},
			"root's file in another's":           {steps: []string{"a 755 x", "a/b.file 600"}, path: "a/b.file", owners: []int{1}},
			"a third one's file":                 {steps: []string{"a 755 x", "a/b.file 600 xx"}, path: "a/b.file", owners: []int{1}, refused: "chown 1 ROOT/a/b.file,"},
			"on a third one's way":               {steps: []string{"a 755 xx", "a/b 755 x"}, path: "a/b", refused: "use a folder in one of root's, or in one of the user with the ID 1"},
			"root's on another's way":            {steps: []string{"a 755 x", "a/b 755"}, path: "a/b", refused: "use a folder in one of root's"},
			"nothing on another's way":           {steps: []string{"a 755 x"}, path: "a/b", refused: "make ROOT/a/b first, as the user whose it is to be"},
			"a group's":                          {steps: []string{"a 775 x xx"}, path: "a", refused: "chmod go-w ROOT/a,"},
			"a group's file":                     {steps: []string{"a 755", "a/b.file 664 x xx"}, path: "a/b.file", refused: "chmod go-w ROOT/a/b.file,"},
			"of a group of its owner":            {steps: []string{"a 775 x"}, path: "a"},
			"on the way of a group of its owner": {steps: []string{"a 775 x", "a/b 755 x"}, path: "a/b"},
		} {
			cases[name] = c
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(root, 0o755); err != nil {
				t.Fatal(err)
			}
			own(t, root, c.steps...)
			if c.link != "" {
				if err := os.Symlink(c.link, filepath.Join(root, "link")); err != nil {
					t.Fatal(err)
				}
			}
			_, err = Guard(filepath.Join(root, c.path), c.owners...)
			switch want := strings.ReplaceAll(c.refused, "ROOT", root); {
			case want == "" && err != nil:
				t.Error(err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)) || err != nil && strings.Contains(want, "use") && strings.Contains(err.Error(), "chown"):
				t.Errorf("want %q, got %v", want, err)
			}
		})
	}
}

// What is not there is no fault of the folders on the way to it.
func TestGuardNothing(t *testing.T) {
	if _, err := Guard(filepath.Join(t.TempDir(), "a", "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
