package powercut

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sector is how many bytes a disk writes as a whole.
const sector = 512

// Disk is a model of a file system for power cuts. It knows what is synced, and what
// has changed since; any part of that may be lost. It promises no more than POSIX:
// syncing a file does not sync its name, and what is not synced may reach the disk in
// any order.
type Disk struct {
	root *Node // a folder that exists, synced, from the start
	next int   // number of the next change
}

// Node is a file or a folder.
type Node struct {
	folder  bool
	content []byte           // of a file, as synced
	names   map[string]*Node // of a folder, as synced
	changes []change         // since the last sync
}

// change is one change of a file or folder.
type change struct {
	number int

	// Of a file: data is written at an offset. If data is nil, the size is set.
	data []byte
	at   int64

	// Of a folder: in one step one name is removed, and another set to a node.
	remove string
	add    string
	node   *Node
}

// NewDisk returns a disk with files, all of them synced. A name that ends with a slash
// is a folder.
func NewDisk(files map[string][]byte) *Disk {
	d := &Disk{root: newFolder()}
	for path, content := range files {
		parent, name := d.root, ""
		for step := range strings.SplitSeq(path, "/") {
			if name != "" {
				if parent.names[name] == nil {
					parent.names[name] = newFolder()
				}
				parent = parent.names[name]
			}
			name = step
		}
		if name != "" {
			parent.names[name] = &Node{content: content}
		}
	}
	return d
}

func newFolder() *Node { return &Node{folder: true, names: map[string]*Node{}} }

// change records a change that is not synced yet.
func (d *Disk) change(n *Node, c change) {
	c.number = d.next
	d.next++
	n.changes = append(n.changes, c)
}

// sync makes the changes of n durable that came before the change with that number,
// which was the next one when the sync began.
func (d *Disk) sync(n *Node, before int) {
	for len(n.changes) > 0 && n.changes[0].number < before {
		c := n.changes[0]
		if n.folder {
			c.rename(n.names)
		} else {
			n.content = c.write(n.content, nil)
		}
		n.changes = n.changes[1:]
	}
}

// IsFolder reports whether the node is a folder.
func (n *Node) IsFolder() bool { return n.folder }

// Has reports whether a folder contains that name now.
func (n *Node) Has(name string) bool { return n.get(name) != nil }

// get returns the node of a name in a folder now, or nil.
func (n *Node) get(name string) *Node {
	names := maps.Clone(n.names)
	for _, c := range n.changes {
		c.rename(names)
	}
	return names[name]
}

// rename applies a folder's change to its names.
func (c *change) rename(names map[string]*Node) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.add != "" {
		names[c.add] = c.node
	}
}

// write applies a file's change to its content and returns the new content. Of data it
// writes only the sectors for which keep is true, or all if keep is nil.
func (c *change) write(content []byte, keep func(sector int) bool) []byte {
	if c.data == nil {
		if int64(len(content)) > c.at {
			return slices.Clone(content[:c.at])
		}
		return append(slices.Clone(content), make([]byte, c.at-int64(len(content)))...)
	}
	end := c.at + int64(len(c.data))
	content = append(slices.Clone(content), make([]byte, max(0, end-int64(len(content))))...)
	for from := c.at; from < end; {
		to := min(end, (from/sector+1)*sector)
		if keep == nil || keep(int(from/sector)) {
			copy(content[from:to], c.data[from-c.at:])
		}
		from = to
	}
	return content
}

// A Loss is how a power cut treats what is not synced.
type Loss string

const (
	losesAll  Loss = "all"
	losesNone Loss = "none"
	losesTail Loss = "the tail" // of each file and folder, from some sector on
	losesSome Loss = "some"     // whole changes, and sectors
)

// Losses returns all kinds of losses.
func Losses() []Loss { return []Loss{losesAll, losesSome, losesTail, losesNone} }

// Cut makes folder what a power cut now might leave of the root.
func (d *Disk) Cut(l Loss, random *rand.Rand, folder string) error {
	return (&remains{l, random, map[*Node]string{}}).make(d.root, folder)
}

// remains is what a power cut leaves.
type remains struct {
	loss   Loss
	random *rand.Rand
	made   map[*Node]string // where the files are that have been written
}

func (r *remains) make(n *Node, path string) error {
	if n.folder {
		names := maps.Clone(n.names)
		kept := r.kept(len(n.changes))
		for i, c := range n.changes {
			if kept(i) {
				c.rename(names)
			}
		}
		all := os.Mkdir(path, 0o700)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			all = errors.Join(all, r.make(names[name], filepath.Join(path, name)))
		}
		return all
	}
	if other := r.made[n]; other != "" {
		return os.Link(other, path)
	}
	r.made[n] = path
	return os.WriteFile(path, r.content(n), 0o600)
}

// content returns what is left of a file.
func (r *remains) content(n *Node) []byte {
	content := n.content
	kept := r.kept(len(n.changes))
	whole := true // so far
	for i, c := range n.changes {
		switch {
		case kept(i):
			content = c.write(content, nil)
		case c.data == nil:
			whole = false
		case r.loss == losesTail && whole: // the change in which the power goes
			whole = false
			torn := int(c.at/sector) + r.random.IntN(len(c.data)/sector+1)
			content = c.write(content, func(sector int) bool { return sector < torn })
		case r.loss == losesSome && r.random.IntN(2) == 0:
			content = c.write(content, func(int) bool { return r.random.IntN(2) == 0 })
		}
	}
	return content
}

// kept returns a function that says which of n changes of a file or folder survive.
func (r *remains) kept(n int) func(i int) bool {
	switch r.loss {
	case losesAll:
		return func(int) bool { return false }
	case losesNone:
		return func(int) bool { return true }
	case losesTail:
		until := r.random.IntN(n + 1)
		return func(i int) bool { return i < until }
	case losesSome:
		return func(int) bool { return r.random.IntN(2) == 0 }
	}
	panic(fmt.Sprintf("there is no loss %q", r.loss))
}
