package powercut

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// after makes the folder that a cut leaves, and returns it.
func after(t *testing.T, d *Disk, l Loss, seed uint64) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "cut")
	check(t, d.Cut(l, rand.New(rand.NewPCG(seed, 0)), folder))
	return folder
}

// left is a file in a folder, or "" when it is not there.
func left(t *testing.T, folder, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// TestDisk is about the model itself: what is synced stays, what is not may go.
func TestDisk(t *testing.T) {
	d := NewDisk(nil)
	file := &Node{}
	d.change(d.root, change{add: "a", node: file})
	d.change(file, change{data: []byte("one")})
	d.sync(file, d.next)
	if got := left(t, after(t, d, losesAll, 0), "a"); got != "" {
		t.Errorf("its name was not synced, and yet there is %q", got)
	}
	mark := d.next
	d.change(d.root, change{remove: "a", add: "b", node: file})
	d.sync(d.root, mark)
	d.change(file, change{data: []byte("two"), at: 1024})
	if folder := after(t, d, losesAll, 0); left(t, folder, "a") != "one" || left(t, folder, "b") != "" {
		t.Error("lost is not what was not synced")
	}
	if folder := after(t, d, losesNone, 0); left(t, folder, "a") != "" || left(t, folder, "b") != "one"+strings.Repeat("\x00", 1021)+"two" {
		t.Error("nothing is lost, and yet not all is there")
	}
	seen := map[bool]int{}
	for seed := range uint64(50) { // in one step
		folder := after(t, d, losesSome, seed)
		a, b := left(t, folder, "a"), left(t, folder, "b")
		if (a == "") == (b == "") {
			t.Errorf("renamed in part: %q, %q", a, b)
		}
		seen[a != ""]++
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Error("an unsynced name is always there, or never:", seen)
	}
	d.sync(d.root, d.next)
	d.sync(file, d.next)
	d.change(file, change{at: 2})
	if got := left(t, after(t, d, losesNone, 0), "b"); got != "on" {
		t.Errorf("cut to two bytes it is %q", got)
	}
}

// TestDiskTears has a write broken off between sectors, and only there.
func TestDiskTears(t *testing.T) {
	d := NewDisk(nil)
	file := &Node{content: bytes.Repeat([]byte("o"), 4*sector)}
	d.root.names["a"] = file
	d.change(file, change{data: bytes.Repeat([]byte("n"), 4*sector-200), at: 100})
	for _, l := range []Loss{losesTail, losesSome} {
		shapes := map[string]bool{}
		for seed := range uint64(500) {
			text := left(t, after(t, d, l, seed), "a")
			shape := ""
			for i := range 4 {
				part := text[i*sector:][100 : sector-100]
				if strings.Trim(part, part[:1]) != "" {
					t.Fatal("a sector is torn")
				}
				shape += part[:1]
			}
			shapes[shape] = true
		}
		if want := map[Loss]int{losesTail: 5, losesSome: 16}[l]; len(shapes) != want {
			t.Errorf("a cut that loses %s leaves %v, want %d different ones", l, shapes, want)
		}
		if l == losesTail && (shapes["ooon"] || !shapes["nooo"]) {
			t.Error("it is not the tail that is lost:", shapes)
		}
	}
}

// TestTrace replays a trace in which two threads take turns.
func TestTrace(t *testing.T) {
	text := strings.NewReplacer("/t/a", `\x2f\x74\x2f\x61`, "/t", `\x2f\x74`, "hi", `\x68\x69`).Replace(`10 openat(AT_FDCWD, "/t/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5
10 openat(AT_FDCWD, "/t", O_RDONLY|O_CLOEXEC) = 6
10 openat(AT_FDCWD, "/t/nothing", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
11 pwrite64(5, "hi", 2, 0 <unfinished ...>
10 fsync(6)                                = 0
10 fdatasync(5 <unfinished ...>
11 <... pwrite64 resumed>)                 = 2
10 <... fdatasync resumed>)                = 0
11 fdatasync(5 <unfinished ...>
10 pwrite64(5, "hi", 2, 2)                 = 2
10 write(1, "hi", 2)                       = 2
11 <... fdatasync resumed>)                = 0
11 ???( <detached ...>
10 +++ exited with 0 +++
`)
	path := filepath.Join(t.TempDir(), "trace")
	check(t, os.WriteFile(path, []byte(text), 0o600))
	moments, err := readTrace(path)
	check(t, err)
	d, said := NewDisk(nil), ""
	r := &replay{disk: d, root: "/t", files: map[string]*Node{}, forget: func(*Node) bool { return false }, said: func(line string) { said += line }}
	for _, m := range moments {
		check(t, r.do(m))
	}
	if said != "hi" {
		t.Errorf("it said %q", said)
	}
	// The second write began after the last sync did.
	if lost, kept := left(t, after(t, d, losesAll, 0), "a"), left(t, after(t, d, losesNone, 0), "a"); lost != "hi" || kept != "hihi" {
		t.Errorf("%q is synced, of %q", lost, kept)
	}
	for _, bad := range []string{"what is this", `10 <... fsync resumed>) = 0`, `10 fallocate(5, 0, 0, 9) = 0`, `10 mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 5, 0) = 0x1`} {
		check(t, os.WriteFile(path, []byte(bad+"\n"), 0o600))
		moments, err := readTrace(path)
		for _, m := range moments {
			if err == nil {
				err = r.do(m)
			}
		}
		if err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}
