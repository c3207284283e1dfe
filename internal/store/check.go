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
		functions: map[string]*faas.Function{},
		names:     map[string]string{},
		code:      map[string]int{},
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
	functions map[string]*faas.Function
	names     map[string]string // → ID
	code      map[string]int    // by key: how long it is
	metas     map[string]bool
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
	var err error
	switch kind + "/" {
	case prefixFunction:
		c.report.Functions++
		var fn *faas.Function
		if fn, err = decodeFunction(e); err == nil {
			c.report.Versions += len(fn.Versions)
			c.functions[fn.ID] = fn
		}
	case prefixName:
		c.names[rest] = string(e.Value)
	case prefixCode:
		c.code[e.Key] = len(e.Value)
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
		if fn.Name != "" && c.names[fn.Name] != id {
			c.problem("function %s is called %s, and that name is %q's", id, fn.Name, c.names[fn.Name])
		}
		for _, v := range fn.Versions {
			key := codeKey(id, v.Number)
			size, ok := c.code[key]
			delete(c.code, key)
			switch {
			case !ok:
				c.problem("the code of function %s, version %d, is missing", id, v.Number)
			case size != v.Size:
				c.problem("the code of function %s, version %d, has %d bytes and should have %d", id, v.Number, size, v.Size)
			}
		}
	}
	for name, id := range c.names {
		if fn := c.functions[id]; fn == nil || fn.Name != name {
			c.problem("the name %q is that of function %q, which is not there or has another", name, id)
		}
	}
	for key := range c.code {
		c.problem("the code %q is that of no version", key)
	}
	slices.Sort(c.report.Problems)
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
