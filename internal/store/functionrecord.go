package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// A function's versions are stored apart from it, so that reading all functions at the
// start reads no history. Code is stored apart from versions, so that versions share
// what is the same.

// functionKind is the kind of functions, by ID.
var functionKind = kind[functionRecord]{
	description: description{name: "function", plural: "functions", prefix: "function/"},
	key:         func(r *functionRecord) string { return r.ID },
	check:       (*functionRecord).check,
	byCreation:  true,
	note:        noteFunction,
}

// functionRecord is a function with the digest of each version's code in place of the
// versions. One look at it tells which code no version needs any more.
type functionRecord struct {
	stamp
	*faas.Function
	Versions []keptVersion `json:"versions"` // in place of the function's own field
}

// keptVersion is a version in its function's record.
type keptVersion struct {
	Number int    `json:"version"`
	Digest string `json:"digest"`
}

// check makes sure that every alias, live among them, points to a version. Others rely
// on it.
func (r *functionRecord) check() error {
	if r.Function == nil {
		return errors.New("it holds no function")
	}
	if r.ID == "" || strings.Contains(r.ID, "/") {
		return fmt.Errorf("%q is not a function ID", r.ID)
	}
	if len(r.Versions) == 0 {
		return errors.New("the function has no version")
	}
	last := 0
	numbers := make(map[int]bool, len(r.Versions))
	for _, v := range r.Versions {
		if v.Number <= last {
			return errors.New("its versions are not in ascending order")
		}
		last = v.Number
		numbers[last] = true
	}
	if !numbers[r.Aliases[faas.Live]] {
		return errors.New("the alias live points to no version")
	}
	for alias, number := range r.Aliases {
		if !numbers[number] {
			return fmt.Errorf("the alias %q points to version %d, which is not there", alias, number)
		}
	}
	return nil
}

// has reports whether a version has the code of that ID.
func (r *functionRecord) has(code string) bool {
	return slices.ContainsFunc(r.Versions, func(v keptVersion) bool { return codeID(r.ID, v.Digest) == code })
}

// function returns the record's function, still without its live version.
func (r *functionRecord) function() *faas.Function {
	fn := r.Function
	fn.Versions = make([]int, len(r.Versions))
	for i, v := range r.Versions {
		fn.Versions[i] = v.Number
	}
	return fn
}

// nameKind is the kind of functions' names. The record of a name is its function's ID.
var nameKind = kind[plain]{
	description: description{name: "name", prefix: "name/"},
	note:        func(c *checking, e Entry, r *plain) { c.names[e.Key[len("name/"):]] = string(*r) },
}

// versionKind is the kind of versions, by the function's ID and number.
var versionKind = kind[versionRecord]{
	description: description{name: "version", plural: "versions", prefix: "version/"},
	key:         func(r *versionRecord) string { return versionID(r.FunctionID, r.Number) },
	check: func(r *versionRecord) error {
		if r.Version == nil || r.Number < 1 {
			return errors.New("it holds no version")
		}
		return nil
	},
	note: func(c *checking, e Entry, r *versionRecord) { c.versions[e.Key] = checkedCode{r.Size, r.Digest} },
}

// versionRecord is a version as it is stored.
type versionRecord struct {
	stamp
	*faas.Version
}

// versionID returns what follows the prefix in the key of a version.
func versionID(functionID string, number int) string {
	return fmt.Sprintf("%s/%08d", functionID, number)
}
