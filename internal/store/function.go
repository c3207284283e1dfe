package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/flockofbirds/fob/internal/faas"
)

// Functions implements faas.Store.
func (s *Store) Functions(ctx context.Context) ([]*faas.Function, error) {
	const doing = "read the functions"
	all, err := functionKind.list(ctx, s.kv)
	if err != nil {
		return nil, internal(doing, err)
	}
	functions := make([]*faas.Function, 0, len(all))
	for _, found := range all {
		fn := found.record.function()
		if fn.Current, err = s.Version(ctx, fn.ID, fn.Aliases[faas.Live]); err != nil {
			return nil, internal(doing, err)
		}
		functions = append(functions, fn)
	}
	return functions, nil
}

// Version implements faas.Store. It fails with CodeUnknownFunction if there is no such
// version.
func (s *Store) Version(ctx context.Context, functionID string, number int) (*faas.Version, error) {
	const doing = "read the version"
	found, err := versionKind.get(ctx, s.kv, versionID(functionID, number))
	if err == nil && found.record == nil {
		err = s.missing(ctx, found.Key, functionID, number)
	}
	if err != nil {
		return nil, internal(doing, err)
	}
	return found.record.Version, nil
}

// missing returns why a version's record is not there: the version never existed, was
// dropped, or its record is lost.
func (s *Store) missing(ctx context.Context, key, functionID string, number int) error {
	found, err := s.function(ctx, functionID)
	if err != nil {
		return err
	}
	if found.record.function().Has(number) {
		return badRecord(key, errors.New("it is not there"))
	}
	return faas.Errorf(faas.CodeUnknownFunction, "function %s has no version %d", functionID, number)
}

// CreateFunction implements faas.Store. It also fails with CodeConflict if a function
// has that ID already. With an empty sandboxID it records no sandbox.
func (s *Store) CreateFunction(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	const doing = "store the function"
	if len(fn.Versions) != 1 {
		return internal(doing, fmt.Errorf("a new function has 1 version, not %d", len(fn.Versions)))
	}
	txn, further, err := putVersion(fn, nil, code, sandboxID)
	if err != nil {
		return internal(doing, err)
	}
	txn.If = []Condition{{functionKind.at(fn.ID), 0}}
	if fn.Name != "" {
		name := nameKind.at(fn.Name)
		txn.If = append(txn.If, Condition{name, 0})
		txn.Put = append(txn.Put, Pair{name, []byte(fn.ID)})
	}
	err = s.commitCode(ctx, txn, codeID(fn.ID, fn.Live().Digest), further)
	if !errors.Is(err, ErrConflict) {
		return internal(doing, err)
	}
	// A condition failed; the conflict does not say which.
	same, err := s.kv.Get(ctx, functionKind.at(fn.ID))
	if err != nil {
		return internal(doing, err)
	}
	if same.Revision != 0 || fn.Name == "" {
		return faas.Errorf(faas.CodeConflict, "there is a function %s already", fn.ID)
	}
	return faas.Errorf(faas.CodeNameTaken, "the name %q belongs to another function: choose another, or PUT to add a version to that one", fn.Name)
}

// AddVersion implements faas.Store. It fails with CodeUnknownFunction if the function
// does not exist. With an empty sandboxID it records no sandbox.
func (s *Store) AddVersion(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	const doing = "store the version"
	found, err := s.function(ctx, fn.ID)
	if err != nil {
		return internal(doing, err)
	}
	conflict := faas.Errorf(faas.CodeConflict, "function %s was changed by somebody else meanwhile: try again", fn.ID)
	if !followsOn(fn, found.record.function()) {
		return conflict
	}
	txn, further, err := putVersion(fn, found.record.Versions, code, sandboxID)
	if err != nil {
		return internal(doing, err)
	}
	txn.If = []Condition{{found.Key, found.Revision}}
	if err := s.commitCode(ctx, txn, codeID(fn.ID, fn.Live().Digest), further); errors.Is(err, ErrConflict) {
		return conflict
	} else if err != nil {
		return internal(doing, err)
	}
	return nil
}

// followsOn reports whether next is stored with one more version. Other versions may
// have been dropped and aliases moved.
func followsOn(next, stored *faas.Function) bool {
	last := len(next.Versions) - 1
	return next.ID == stored.ID && next.Name == stored.Name && next.Created.Equal(stored.Created) &&
		next.Latest() == stored.Latest()+1 && next.Live().Number == next.Latest() &&
		!slices.ContainsFunc(next.Versions[:last], func(n int) bool { return !stored.Has(n) })
}

// putVersion returns the transaction that stores fn, whose live version is new, in
// place of a function that had the versions had. It deletes the versions that fn no
// longer has, and code that no version has any more. further are the chunks of code for
// which the transaction has no room.
func putVersion(fn *faas.Function, had []keptVersion, code, sandboxID string) (txn Txn, further []Pair, err error) {
	v := fn.Live()
	var kept []keptVersion
	digests := map[string]bool{} // of stored code; true if a version still has it
	for _, old := range had {
		stays := fn.Has(old.Number)
		digests[old.Digest] = digests[old.Digest] || stays
		if stays {
			kept = append(kept, old)
		} else {
			txn.Delete = append(txn.Delete, versionKind.at(versionID(fn.ID, old.Number)))
		}
	}
	if _, there := digests[v.Digest]; !there {
		// From now on the code is found by this digest, so it had better be right.
		if v.Digest != faas.Digest(code) {
			return txn, nil, fmt.Errorf("the digest %.80q is not that of the code", v.Digest)
		}
		all := chunks(codeID(fn.ID, v.Digest), []byte(code))
		txn.Put, further = append(txn.Put, all[0]), all[1:]
	}
	digests[v.Digest] = true
	for digest, stays := range digests {
		if !stays {
			txn.DeletePrefix = append(txn.DeletePrefix, codeKind.at(codeID(fn.ID, digest))) // all chunks
		}
	}
	function, err := functionKind.put(fn.ID, &functionRecord{Function: fn, Versions: append(kept, keptVersion{v.Number, v.Digest})})
	if err != nil {
		return txn, nil, err
	}
	version, err := versionKind.put(versionID(fn.ID, v.Number), &versionRecord{Version: v})
	if err != nil {
		return txn, nil, err
	}
	txn.Put = append(txn.Put, function, version)
	if sandboxID != "" {
		note, err := sandboxKind.put(sandboxID, &sandboxRecord{VersionKey: v.Key()})
		if err != nil {
			return txn, nil, err
		}
		txn.Put = append(txn.Put, note)
	}
	return txn, further, nil
}

// RenameFunction implements faas.Store. It fails with CodeUnknownFunction if the function
// does not exist.
func (s *Store) RenameFunction(ctx context.Context, id, name string) error {
	const doing = "rename the function"
	found, err := s.function(ctx, id)
	if err != nil {
		return internal(doing, err)
	}
	renamed := *found.record
	fn := *found.record.Function
	fn.Name = name
	renamed.Function = &fn
	record, err := functionKind.put(id, &renamed)
	if err != nil {
		return internal(doing, err)
	}
	key := nameKind.at(name)
	txn := Txn{
		If:  []Condition{{found.Key, found.Revision}, {key, 0}},
		Put: []Pair{record, {key, []byte(id)}},
	}
	if had := found.record.Name; had != "" {
		txn.Delete = append(txn.Delete, nameKind.at(had))
	}
	err = s.kv.Commit(ctx, txn)
	if !errors.Is(err, ErrConflict) {
		return internal(doing, err)
	}
	// A condition failed; the conflict does not say which.
	taken, err := s.kv.Get(ctx, key)
	switch {
	case err != nil:
		return internal(doing, err)
	case taken.Revision != 0:
		return faas.Errorf(faas.CodeNameTaken, "the name %q belongs to another function: choose another", name)
	}
	return faas.Errorf(faas.CodeConflict, "function %s was changed by somebody else meanwhile: try again", id)
}

// DeleteFunction implements faas.Store. It deletes the records of the function's
// sandboxes, too. It fails with CodeUnknownFunction if the function does not exist, and
// with CodeConflict if it changes meanwhile.
func (s *Store) DeleteFunction(ctx context.Context, id string) error {
	const doing = "delete the function"
	found, err := s.function(ctx, id)
	if err != nil {
		return internal(doing, err)
	}
	notes, err := s.Sandboxes(ctx)
	if err != nil {
		return err
	}
	txn := Txn{
		If:           []Condition{{found.Key, found.Revision}},
		Delete:       []string{found.Key},
		DeletePrefix: []string{versionKind.at(id + "/"), codeKind.at(id + "/"), stagedKind.at(id + "/")},
	}
	if name := found.record.Name; name != "" {
		txn.Delete = append(txn.Delete, nameKind.at(name))
	}
	var more []string
	for sandboxID, version := range notes {
		if version.FunctionID != id {
			continue
		}
		if len(txn.Delete) < maxForgotten {
			txn.Delete = append(txn.Delete, sandboxKind.at(sandboxID))
		} else {
			more = append(more, sandboxID)
		}
	}
	if err := s.kv.Commit(ctx, txn); errors.Is(err, ErrConflict) {
		return faas.Errorf(faas.CodeConflict, "function %s was changed by somebody else meanwhile: try again", id)
	} else if err != nil {
		return internal(doing, err)
	}
	// A sandbox's record that stays does no harm: it is deleted with the sandbox.
	return s.ForgetSandboxes(ctx, more...)
}

// function reads a function. It fails with CodeUnknownFunction if there is none.
func (s *Store) function(ctx context.Context, id string) (stored[functionRecord], error) {
	found, err := functionKind.get(ctx, s.kv, id)
	if err == nil && found.record == nil {
		err = faas.Errorf(faas.CodeUnknownFunction, "there is no function %s", id)
	}
	return found, err
}
