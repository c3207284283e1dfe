package store

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/faas"
)

// Report is what Check has found in a database.
type Report struct {
	Schema    int
	Records   int
	Functions int
	Versions  int
	Tokens    int
	Secrets   int
	Sandboxes int
	Problems  []string // in no order that matters; cut off at some length
}

// Err returns the problems as one error, or nil when there are none.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errDamaged, strings.Join(r.Problems, "; "))
}

// String says what is in the database.
func (r *Report) String() string {
	return fmt.Sprintf("%d functions with %d versions, %d tokens, %d secrets, %d sandboxes; %d records, schema %d",
		r.Functions, r.Versions, r.Tokens, r.Secrets, r.Sandboxes, r.Records, r.Schema)
}

// Check reads all of the database at path and reports what is in it and what is
// wrong: its pages, the checksums, the digest, and what records say of one
// another. It never writes. It fails with ErrInUse while a dispatcher has the
// database, and when the file cannot be read at all.
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

// CheckCopy is Check for a database that is read from somewhere. It is put into
// a file in folder, which has no name, meanwhile.
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

// checkOpen is Check for an open file, which nobody writes to.
func checkOpen(file *os.File) (*Report, error) {
	if _, err := file.Stat(); err != nil {
		return nil, err
	}
	c := checking{
		functions: map[string]*checkedFunction{},
		names:     map[string]string{},
		versions:  map[string]checkedCode{},
		code:      map[string]checkedCode{},
		metas:     map[string]bool{},
	}
	found := surveyFile(file, c.record)
	c.report.Schema = found.schema
	for _, err := range found.problems {
		c.problem("%v", err)
	}
	if len(found.problems) == 0 {
		c.bbolt(file)
	}
	c.references()
	return &c.report, nil
}

// checking is what Check remembers of the records.
type checking struct {
	report    Report
	functions map[string]*checkedFunction
	names     map[string]string      // → ID
	versions  map[string]checkedCode // by key: what code it says that it has
	code      map[string]checkedCode // by key
	metas     map[string]bool
}

type checkedFunction struct {
	name string
	kept []keptVersion
	old  *secondRecord // not nil in a database of an older schema
}

type checkedCode struct {
	size   int
	digest string
}

func (c *checking) problem(format string, args ...any) {
	if len(c.report.Problems) < 10*maxProblems {
		c.report.Problems = append(c.report.Problems, fmt.Sprintf(format, args...))
	}
}

// record takes note of one record.
func (c *checking) record(e Entry) {
	c.report.Records++
	kind, rest, _ := strings.Cut(e.Key, "/")
	kind += "/"
	if strings.HasPrefix(e.Key, prefixCode) || strings.HasPrefix(e.Key, secondPrefixCode) {
		kind = prefixCode
	}
	var err error
	switch kind {
	case prefixFunction:
		c.report.Functions++
		var fn *faas.Function
		var kept []keptVersion
		if fn, kept, err = decodeFunction(e); err != nil {
			break
		}
		c.report.Versions += len(kept)
		checked := &checkedFunction{name: fn.Name, kept: kept}
		c.functions[fn.ID] = checked
		if isSecond(e) {
			checked.old, err = decodeSecond(e)
		}
	case prefixVersion:
		var v *faas.Version
		if v, err = decodeVersion(e); err == nil {
			c.versions[e.Key] = checkedCode{v.Size, v.Digest}
		}
	case prefixName:
		c.names[rest] = string(e.Value)
	case prefixCode:
		c.code[e.Key] = checkedCode{len(e.Value), faas.Digest(string(e.Value))}
	case prefixSandbox:
		c.report.Sandboxes++
		// That its function is there is not asked: one that was deleted while a
		// sandbox started has its record until that has gone.
		_, err = decodeSandbox(e)
	case prefixToken:
		c.report.Tokens++
		_, err = decodeToken(e)
	case prefixSecret:
		c.report.Secrets++
		_, err = decodeSecret(e)
	default:
		c.metas[e.Key] = true
		switch e.Key {
		case keySchema:
			err = checkSchemaRecord(e)
		case keyAviary:
			err = checkAviary(e)
		default:
			err = fmt.Errorf("the record %.80q is none that this dispatcher knows", e.Key)
		}
	}
	if err != nil {
		c.problem("%v", err)
	}
}

// references checks what records say of one another. What cannot be read at all
// has been told already.
func (c *checking) references() {
	for _, key := range []string{keySchema, keyAviary} {
		if !c.metas[key] {
			c.problem("the record %q is missing", key)
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
			c.problem("the name %q is that of function %q, which is not there or has another", name, id)
		}
	}
	for key := range c.versions {
		c.problem("the version %q is that of no function", key)
	}
	for key := range c.code {
		c.problem("the code %q is that of no version", key)
	}
	slices.Sort(c.report.Problems)
}

// keptVersions checks the versions of a function, and their code.
func (c *checking) keptVersions(id string, kept []keptVersion) {
	used := map[string]bool{}
	for _, k := range kept {
		key := versionKey(id, k.Number)
		v, ok := c.versions[key]
		delete(c.versions, key)
		used[codeKey(id, k.Digest)] = true
		code, hasCode := c.code[codeKey(id, k.Digest)]
		switch {
		case !ok:
			c.problem("function %s, version %d, is missing", id, k.Number)
		case v.digest != k.Digest:
			c.problem("function %s, version %d, has other code than the function says", id, k.Number)
		case !hasCode:
			c.problem("the code of function %s, version %d, is missing", id, k.Number)
		case code.size != v.size:
			c.problem("the code of function %s, version %d, has %d bytes and should have %d", id, k.Number, code.size, v.size)
		case code.digest != v.digest:
			c.problem("the code of function %s, version %d, has the digest %s and should have %s", id, k.Number, code.digest, v.digest)
		}
	}
	for key := range used {
		delete(c.code, key)
	}
}

// oldVersions does the same for a function of an older schema.
func (c *checking) oldVersions(fn *secondRecord) {
	for _, v := range fn.Versions {
		key := secondCodeKey(fn.ID, v.Number)
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

// bbolt has bbolt check its pages. The survey found nothing, so this may run.
func (c *checking) bbolt(file *os.File) {
	err := guard(func() error {
		db, err := bbolt.Open(file.Name(), 0, &bbolt.Options{
			ReadOnly: true,
			Timeout:  time.Nanosecond,
			OpenFile: func(name string, _ int, _ os.FileMode) (*os.File, error) {
				// The same open file, so that bbolt's lock is ours.
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

// How to lock a database: to change it, or so that nobody does.
const (
	lockAlone  = syscall.LOCK_EX
	lockShared = syscall.LOCK_SH
)
