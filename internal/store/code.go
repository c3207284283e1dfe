package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// chunkSize is how much code one record has, in bytes: what a transaction has room for
// besides a function with all its versions and the settings of one, which are six times
// as large in JSON when they are control characters. The code of most functions is one record.
const chunkSize = 512 << 10

// codeKind is the kind of code as it was registered, by the function's ID and digest,
// with a number behind for each further chunk of it. It stands between the two keys that never
// change: bbolt has two records at least in a page, and writes a page anew with all of it
// when one of them changes. Code beside a function's record would be written with each
// of its changes.
var codeKind = kind[plain]{
	description: description{name: "code", prefix: "meta/code/"},
	note:        func(c *checking, e Entry, r *plain) { c.addCode(firstChunk(e.Key), r) },
}

// codeID is what follows the prefix in the key of the code with a digest as
// Version.Digest has it.
func codeID(functionID, digest string) string {
	return functionID + "/" + strings.TrimPrefix(digest, "sha256:")
}

// chunkID is what follows the prefix in the key of the nth chunk of a code; 0 is the
// first.
func chunkID(code string, n int) string {
	if n == 0 {
		return code
	}
	return fmt.Sprintf("%s/%04d", code, n)
}

// firstChunk returns the key of the first chunk of the code that has one at key.
func firstChunk(key string) string {
	if strings.Count(key, "/") == len("///") { // of the prefix and after the function's ID
		return key
	}
	return key[:strings.LastIndexByte(key, '/')]
}

// chunks returns what stores a code.
func chunks(id string, code []byte) (pairs []Pair) {
	for n := 0; n == 0 || len(code) > 0; n++ {
		size := min(chunkSize, len(code))
		pairs = append(pairs, Pair{codeKind.at(chunkID(id, n)), code[:size]})
		code = code[size:]
	}
	return pairs
}

// Code implements faas.Store. It fails with CodeUnknownFunction when there is no
// such version.
func (s *Store) Code(ctx context.Context, functionID string, version int) (string, error) {
	const doing = "read the code"
	v, err := s.Version(ctx, functionID, version)
	if err != nil {
		return "", err
	}
	var code strings.Builder
	id := codeID(functionID, v.Digest)
	for n := 0; n == 0 || code.Len() < v.Size; n++ {
		chunk, err := codeKind.get(ctx, s.kv, chunkID(id, n))
		if err == nil && chunk.record == nil {
			err = s.missing(ctx, chunk.Key, functionID, version)
		}
		if err != nil {
			return "", internal(doing, err)
		}
		if n == 0 && len(*chunk.record) == v.Size {
			return string(*chunk.record), nil
		}
		code.WriteString(string(*chunk.record))
	}
	if code.Len() != v.Size {
		return "", internal(doing, badRecord(codeKind.at(id), fmt.Errorf("it has %d bytes and should have %d", code.Len(), v.Size)))
	}
	return code.String(), nil
}

// stagedKind is the kind of notes that further chunks of a code are being stored, by the
// function's ID and digest. The version that has the code comes last, and takes the note
// away; what a crash leaves is cleared up when the store is opened.
var stagedKind = kind[plain]{
	description: description{name: "staged code", prefix: "staged/"},
	note:        func(c *checking, e Entry, _ *plain) { c.staged[e.Key[len("staged/"):]] = true },
}

// commitCode commits txn, which stores a version and the first chunk of its code,
// after the further chunks, each in a transaction of its own. Unless txn is
// committed, they are gone again.
func (s *Store) commitCode(ctx context.Context, txn Txn, id string, further []Pair) error {
	if len(further) == 0 {
		return s.kv.Commit(ctx, txn)
	}
	err := s.stage(ctx, &txn, id, further)
	if err == nil {
		err = s.kv.Commit(ctx, txn)
	}
	if err != nil {
		// If that fails too, the next start does it.
		s.dropStaged(context.WithoutCancel(ctx), id)
	}
	return err
}

// stage stores further chunks of a code, and has txn take their note away. Each
// transaction after the first has the note for a condition: whoever clears up the
// chunks takes it away with them.
func (s *Store) stage(ctx context.Context, txn *Txn, id string, further []Pair) error {
	note, err := stagedKind.put(id, new(plain))
	if err == nil {
		err = s.kv.Commit(ctx, Txn{Put: []Pair{note, further[0]}})
	}
	if err != nil {
		return err
	}
	found, err := s.kv.Get(ctx, note.Key)
	if err != nil {
		return err
	}
	if found.Revision == 0 {
		return ErrConflict
	}
	noted := Condition{note.Key, found.Revision}
	for _, chunk := range further[1:] {
		if err := s.kv.Commit(ctx, Txn{If: []Condition{noted}, Put: []Pair{chunk}}); err != nil {
			return err
		}
	}
	txn.If = append(txn.If, noted)
	txn.Delete = append(txn.Delete, note.Key)
	return nil
}

// dropStaged clears up after a code that was staged, if its note is there: the chunks
// go, unless a version has them by now.
func (s *Store) dropStaged(ctx context.Context, id string) error {
	note, err := stagedKind.get(ctx, s.kv, id)
	if err != nil || note.record == nil {
		return err
	}
	functionID, _, _ := strings.Cut(id, "/")
	fn, err := functionKind.get(ctx, s.kv, functionID)
	if err != nil {
		return err
	}
	txn := Txn{If: []Condition{{note.Key, note.Revision}, {fn.Key, fn.Revision}}, Delete: []string{note.Key}}
	if fn.record == nil || !fn.record.has(id) {
		txn.DeletePrefix = []string{codeKind.at(id)}
	}
	if err := s.kv.Commit(ctx, txn); !errors.Is(err, ErrConflict) {
		return err
	}
	return nil // somebody else is at it
}

// dropAllStaged clears up what a crash has left.
func (s *Store) dropAllStaged(ctx context.Context) error {
	all, err := stagedKind.list(ctx, s.kv)
	for _, note := range all {
		if err == nil {
			err = s.dropStaged(ctx, note.id)
		}
	}
	return err
}
