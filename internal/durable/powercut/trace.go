package powercut

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// modelled are the system calls that replay knows. strange are others by which a file
// could be changed; replay fails if it meets one.
var (
	modelled = []string{"openat", "close", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "linkat", "renameat", "renameat2", "unlinkat", "mkdirat", "mmap", "dup"}
	strange  = []string{"open", "creat", "openat2", "writev", "pwritev", "pwritev2", "truncate", "fallocate", "sync_file_range", "copy_file_range", "sendfile",
		"splice", "rename", "link", "unlink", "mkdir", "rmdir", "symlink", "symlinkat", "dup2", "dup3", "msync", "io_uring_setup"}
)

// straceFlags returns flags with which strace writes what readTrace reads.
func straceFlags(file string) []string {
	return []string{"-f", "--seccomp-bpf", "-qq", "-xx", "-s", "100000000", "-e", "signal=none", "-o", file, "-e", "trace=" + strings.Join(slices.Concat(modelled, strange), ","),
		"-e", "inject=copy_file_range,sendfile,splice:error=ENOSYS"} // makes Go copy with write
}

// syscall is a system call in a trace.
type syscall struct {
	name   string
	args   []string
	result string // up to the first blank; "?" if the process did not live to see it
	begun  int    // of a sync: the number of the first change that it need not wait for
}

// Moment is the beginning or the end of a system call.
type Moment struct {
	call  *syscall
	ended bool
}

// readTrace reads what strace wrote. A call that another thread interrupts takes two
// lines.
func readTrace(file string) ([]Moment, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var moments []Moment
	under := map[string]*syscall{} // the call under way, by thread
	for line := range strings.Lines(string(text)) {
		thread, line, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		line = strings.TrimLeft(line, " ")
		// The thread's end. strace may lose a thread of a process that ends before it
		// knows what that calls.
		if strings.HasPrefix(line, "+++ ") || strings.HasPrefix(line, "???(") && strings.HasSuffix(line, "<detached ...>") {
			continue
		}
		text, result, ended := cutLast(line, " = ")
		result, _, _ = strings.Cut(result, " ") // ENOENT, for example
		text = strings.TrimSuffix(strings.TrimRight(text, " "), ")")
		name, resumed := strings.CutPrefix(text, "<... ")
		name, _, _ = strings.Cut(name, " resumed>")
		if resumed {
			call := under[thread]
			if call == nil || call.name != name || !ended {
				return nil, fmt.Errorf("nothing of that sort was begun: %.200s", line)
			}
			delete(under, thread)
			call.result = result
			moments = append(moments, Moment{call, true})
			continue
		}
		unfinished := false
		if !ended {
			text, unfinished = strings.CutSuffix(line, " <unfinished ...>")
		}
		name, args, called := strings.Cut(text, "(")
		if !called || !ended && !unfinished {
			return nil, fmt.Errorf("a strange line in the trace: %.200s", line)
		}
		call := &syscall{name: name, args: strings.Split(args, ", "), result: "?"} // with -xx, texts have no commas
		moments = append(moments, Moment{call, false})
		if unfinished {
			under[thread] = call
			continue
		}
		call.result = result
		moments = append(moments, Moment{call, true})
	}
	return moments, nil
}

// cutLast is like strings.Cut, but cuts around the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// replay does what a traced process did on the model of a disk.
type replay struct {
	disk   *Disk
	root   string            // path of the disk's root
	files  map[string]*Node  // by file descriptor
	offset map[string]int64  // by file descriptor: where the next write goes
	forget func(*Node) bool  // whose syncs are left out
	said   func(line string) // gets what the process printed
}

// do replays one moment. A write takes effect at the beginning of its call. It is
// durable at the end of a sync if it was written before the sync began. Printed lines
// count from the beginning of their call.
func (r *replay) do(m Moment) error {
	c := m.call
	if strings.HasPrefix(c.result, "-") {
		return nil // the call failed
	}
	file := r.files[c.args[0]]
	switch c.name {
	case "fsync", "fdatasync":
		switch {
		case file == nil:
		case !m.ended:
			c.begun = r.disk.next
		case c.result == "0" && !r.forget(file):
			r.disk.sync(file, c.begun)
		}
		return nil
	case "openat":
		if m.ended {
			return r.open(c)
		}
		return nil
	}
	if m.ended {
		return nil
	}
	switch c.name {
	case "close":
		delete(r.files, c.args[0])
	case "dup": // neither descriptor is written to with write
		r.files[c.result] = file
	case "write":
		if c.args[0] == "1" {
			line, err := c.text(1)
			r.said(strings.TrimSuffix(line, "\n"))
			return err
		}
		if file == nil {
			return nil
		}
		c.args = append(c.args, strconv.FormatInt(r.offset[c.args[0]], 10))
		written, err := strconv.Atoi(c.result)
		if err == nil {
			r.offset[c.args[0]] += int64(written)
		}
		return r.write(c, file)
	case "pwrite64":
		if file == nil {
			return nil
		}
		return r.write(c, file)
	case "ftruncate":
		if file != nil {
			size, err := strconv.ParseInt(c.args[1], 10, 64)
			r.disk.change(file, change{at: size})
			return err
		}
	case "mmap":
		if mapped := r.files[c.args[4]]; mapped != nil && strings.Contains(c.args[2], "PROT_WRITE") && strings.Contains(c.args[3], "MAP_SHARED") {
			return fmt.Errorf("a file is mapped to be written, which no trace shows: %v", c.args)
		}
	case "mkdirat":
		return r.rename(c, -1, 1, newFolder())
	case "unlinkat":
		return r.rename(c, 1, -1, nil)
	case "linkat":
		return r.rename(c, -1, 3, r.at(c, 1))
	case "renameat", "renameat2":
		return r.rename(c, 1, 3, r.at(c, 1))
	default:
		for i := range c.args {
			if _, inside, _ := r.path(c, i); inside || r.files[c.args[i]] != nil {
				return fmt.Errorf("the model has no %s: %.200v", c.name, c.args)
			}
		}
	}
	return nil
}

// write replays a write to a file.
func (r *replay) write(c *syscall, file *Node) error {
	data, err := c.text(1)
	if err != nil {
		return err
	}
	if c.result != strconv.Itoa(len(data)) && c.result != "?" {
		return fmt.Errorf("it was to write %d bytes, and wrote %s", len(data), c.result)
	}
	at, err := strconv.ParseInt(c.args[3], 10, 64)
	r.disk.change(file, change{data: []byte(data), at: at})
	return err
}

// open records what a descriptor stands for.
func (r *replay) open(c *syscall) error {
	_, inside, err := r.path(c, 1)
	if !inside || err != nil {
		return err
	}
	for _, flag := range []string{"O_SYNC", "O_DSYNC", "O_DIRECT|", "O_TRUNC", "O_APPEND", "O_TMPFILE"} {
		if strings.Contains(c.args[2]+"|", flag) {
			return fmt.Errorf("the model has no %s", flag)
		}
	}
	n := r.at(c, 1)
	if n == nil && strings.Contains(c.args[2], "O_CREAT") {
		n = &Node{}
		err = r.rename(c, -1, 1, n)
	}
	if n == nil {
		return fmt.Errorf("it opened what the model lacks: %v", c.args)
	}
	r.files[c.result] = n
	delete(r.offset, c.result)
	return err
}

// rename changes folders: it removes the name in one argument, and sets the name in
// another to n. -1 means none.
func (r *replay) rename(c *syscall, remove, add int, n *Node) error {
	var change change
	var parent *Node
	for i, name := range map[int]*string{remove: &change.remove, add: &change.add} {
		if i < 0 {
			continue
		}
		path, inside, err := r.path(c, i)
		if err != nil {
			return err
		}
		if !inside {
			return nil
		}
		if other := r.lookup(filepath.Dir(path)); other == nil || parent != nil && parent != other {
			return fmt.Errorf("the model has no %s from one folder to another, or in none: %s", c.name, path)
		} else {
			parent = other
		}
		*name = filepath.Base(path)
	}
	change.node = n
	r.disk.change(parent, change)
	return nil
}

// at returns the node at the path in an argument, or nil.
func (r *replay) at(c *syscall, i int) *Node {
	path, inside, err := r.path(c, i)
	if err != nil || !inside {
		return nil
	}
	return r.lookup(path)
}

func (r *replay) lookup(path string) *Node {
	n := r.disk.root
	if path == r.root {
		return n
	}
	for _, name := range strings.Split(strings.TrimPrefix(path, r.root+"/"), "/") {
		if n = n.get(name); n == nil {
			return nil
		}
	}
	return n
}

// path returns the path in an argument, and whether it is on the disk.
func (r *replay) path(c *syscall, i int) (path string, inside bool, err error) {
	if !strings.HasPrefix(c.args[i], `"`) {
		return "", false, nil
	}
	path, err = c.text(i)
	if i > 0 && c.args[i-1] != "AT_FDCWD" && r.files[c.args[i-1]] != nil {
		return "", false, fmt.Errorf("the model has no path from an open folder: %s", path)
	}
	return path, path == r.root || strings.HasPrefix(path, r.root+"/"), err
}

// text returns an argument that is a text, such as "\x2f\x74".
func (c *syscall) text(i int) (string, error) {
	quoted, whole := strings.CutSuffix(c.args[i], `"`)
	text, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(quoted, `"`), `\x`, ""))
	if err == nil && !whole {
		err = fmt.Errorf("cut off")
	}
	if err != nil {
		err = fmt.Errorf("an argument of %s: %w", c.name, err)
	}
	return string(text), err
}
