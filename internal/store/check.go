package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/store/survey"
)

// Report is the outcome of a Check.
type Report struct {
	Schema   int
	Records  int
	Counts   []Count  // of the kinds that the report counts
	Problems []string // in no particular order; cut off if there are many
}

// Count is how many records of a kind there are.
type Count struct {
	Kind string // plural, for people
	N    int
}

// Err returns the problems as one error, or nil if there are none.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errDamaged, strings.Join(r.Problems, "; "))
}

// String lists what is in the database.
func (r *Report) String() string {
	counts := make([]string, len(r.Counts))
	for i, c := range r.Counts {
		counts[i] = fmt.Sprintf("%d %s", c.N, c.Kind)
	}
	return fmt.Sprintf("%s; %d records, schema %d", strings.Join(counts, ", "), r.Records, r.Schema)
}

// Check reads the whole database at path and reports what is in it and what is wrong
// with it: the pages, the checksums, the digest, and how the records fit together. It
// never writes. It fails with ErrInUse while a dispatcher uses the database, and if the
// file cannot be read at all.
func Check(path string) (*Report, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := takeLock(file, path, lockShared); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return checkOpen(file)
}

// CheckCopy is Check for a database that comes from a reader. It keeps the copy in a
// nameless file in folder.
func CheckCopy(from io.Reader, folder string) (*Report, error) {
	file, err := os.CreateTemp(folder, "fob-check-*")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	if _, err := io.Copy(file, from); err != nil {
		return nil, err
	}
	return checkOpen(file)
}

// checkOpen is Check for an open file to which nobody writes.
func checkOpen(file *os.File) (*Report, error) {
	if _, err := file.Stat(); err != nil {
		return nil, err
	}
	c := checking{
		functions: map[string]*checkedFunction{},
		names:     map[string]string{},
		versions:  map[string]checkedCode{},
		code:      map[string]*checkedChunks{},
		staged:    map[string]bool{},
		counts:    map[*description]int{},
	}
	found := readContents(file, c.record)
	c.report.Schema = found.schema
	for _, err := range found.problems {
		c.problem("%v", err)
	}
	if len(found.problems) == 0 {
		c.bbolt(file)
	}
	c.references()
	for _, k := range kinds {
		if k := k.describe(); k.plural != "" {
			c.report.Counts = append(c.report.Counts, Count{k.plural, c.counts[k]})
		}
	}
	return &c.report, nil
}

// checking collects what Check has to compare at the end.
type checking struct {
	report    Report
	functions map[string]*checkedFunction
	names     map[string]string         // → ID
	versions  map[string]checkedCode    // the code that each should have, by key of the version
	code      map[string]*checkedChunks // by key of the first chunk
	staged    map[string]bool           // IDs of code that is being stored
	counts    map[*description]int
}

// checkedFunction is what has to be compared about a function.
type checkedFunction struct {
	name string
	kept []keptVersion
	old  *secondRecord // nil unless the database has an older schema
}

// checkedCode is the code that a version should have.
type checkedCode struct {
	size   int
	digest string
}

// checkedChunks are the chunks of one code.
type checkedChunks struct {
	size int
	hash hash.Hash
}

func (c *checkedChunks) digest() string { return "sha256:" + hex.EncodeToString(c.hash.Sum(nil)) }

func (c *checking) problem(format string, args ...any) {
	if len(c.report.Problems) < 10*survey.MaxProblems {
		c.report.Problems = append(c.report.Problems, fmt.Sprintf(format, args...))
	}
}

// record takes in one record.
func (c *checking) record(e Entry) {
	c.report.Records++
	k := kindOf(e.Key)
	if k == nil {
		c.problem("the record %.80q is of no kind that this dispatcher knows", e.Key)
		return
	}
	c.counts[k.describe()]++
	if err := k.examine(c, e); err != nil {
		c.problem("%v", err)
	}
}

func noteFunction(c *checking, e Entry, r *functionRecord) {
	checked := &checkedFunction{name: r.Name, kept: r.Versions}
	c.functions[r.ID] = checked
	if r.Schema < 3 {
		var err error
		if checked.old, err = readSecond(e); err != nil {
			c.problem("%v", err)
		}
		c.counts[versionKind.describe()] += len(r.Versions) // they have no records of their own
	}
}

// addCode adds a chunk of a code. The chunks come in order. key is the first one's.
func (c *checking) addCode(key string, r *plain) {
	code := c.code[key]
	if code == nil {
		code = &checkedChunks{hash: sha256.New()}
		c.code[key] = code
	}
	code.size += len(*r)
	io.WriteString(code.hash, string(*r)) // never fails
}

// references checks how the records fit together. Records that could not be read have
// been reported already.
func (c *checking) references() {
	for _, k := range kinds {
		if k := k.describe(); k.single && c.counts[k] == 0 {
			c.problem("the record %q is missing", k.prefix)
		}
	}
	for id, fn := range c.functions {
		if fn.name != "" && c.names[fn.name] != id {
			c.problem("function %s is called %s, and that name is %q's", id, fn.name, c.names[fn.name])
		}
		if fn.old != nil {
			c.oldVersions(fn.old)
		} else {
			c.keptVersions(id, fn.kept)
		}
	}
	for name, id := range c.names {
		if fn := c.functions[id]; fn == nil || fn.name != name {
			c.problem("the name %q is that of function %q, which does not exist or has another name", name, id)
		}
	}
	for key := range c.versions {
		c.problem("no function has the version %q", key)
	}
	for key := range c.code {
		if c.staged[strings.TrimPrefix(key, codeKind.prefix)] {
			continue
		}
		c.problem("no version has the code %q", key)
	}
	slices.Sort(c.report.Problems)
}

// keptVersions checks the versions of a function and their code.
func (c *checking) keptVersions(id string, kept []keptVersion) {
	used := map[string]bool{}
	for _, k := range kept {
		key, codeKey := versionKind.at(versionID(id, k.Number)), codeKind.at(codeID(id, k.Digest))
		v, ok := c.versions[key]
		delete(c.versions, key)
		used[codeKey] = true
		code, hasCode := c.code[codeKey]
		switch {
		case !ok:
			c.problem("function %s, version %d, is missing", id, k.Number)
		case v.digest != k.Digest:
			c.problem("function %s, version %d, has other code than the function says", id, k.Number)
		case !hasCode:
			c.problem("the code of function %s, version %d, is missing", id, k.Number)
		case code.size != v.size:
			c.problem("the code of function %s, version %d, has %d bytes and should have %d", id, k.Number, code.size, v.size)
		case code.digest() != v.digest:
			c.problem("the code of function %s, version %d, has the digest %s and should have %s", id, k.Number, code.digest(), v.digest)
		}
	}
	for key := range used {
		delete(c.code, key)
	}
}

// oldVersions does the same for a function of an older schema.
func (c *checking) oldVersions(fn *secondRecord) {
	for _, v := range fn.Versions {
		key := secondCodeKind.at(versionID(fn.ID, v.Number))
		code, ok := c.code[key]
		delete(c.code, key)
		switch {
		case !ok:
			c.problem("the code of function %s, version %d, is missing", fn.ID, v.Number)
		case code.size != v.Size:
			c.problem("the code of function %s, version %d, has %d bytes and should have %d", fn.ID, v.Number, code.size, v.Size)
		}
	}
}

// bbolt has bbolt check its own pages. It is safe because the survey found nothing.
func (c *checking) bbolt(file *os.File) {
	err := guard(func() error {
		db, err := bbolt.Open(file.Name(), 0, &bbolt.Options{
			ReadOnly: true,
			Timeout:  time.Nanosecond,
			OpenFile: func(name string, _ int, _ os.FileMode) (*os.File, error) {
				// Use the same open file, so that bbolt's lock is ours.
				same, err := syscall.Dup(int(file.Fd()))
				return os.NewFile(uintptr(same), name), err
			},
		})
		if err != nil {
			return err
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				c.problem("%v", err)
			}
			return nil
		})
	})
	if err != nil {
		c.problem("%v", err)
	}
}

// How to lock a database: for writing, or only to keep writers out.
const (
	lockAlone  = syscall.LOCK_EX
	lockShared = syscall.LOCK_SH
)
