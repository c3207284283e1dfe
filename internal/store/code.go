package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// chunkSize is how many bytes of code one record has. A transaction has to hold a chunk
// besides a function with all its versions and the settings of one; settings made of
// control characters are six times as long in JSON. The code of most functions is one
// record.
const chunkSize = 512 << 10

// codeKind is the kind of registered code, by the function's ID and digest. Every chunk
// after the first has its number at the end of the key. The prefix sorts code between
// two keys that never change. bbolt keeps at least two records in a page, and rewrites
// the whole page when one of them changes; code beside a function's record would be
// rewritten with every change of the function.
var codeKind = kind[plain]{
	description: description{name: "code", prefix: "meta/code/"},
	note:        func(c *checking, e Entry, r *plain) { c.addCode(firstChunk(e.Key), r) },
}

// codeID returns what follows the prefix in the key of a code. digest is in the form
// that Version.Digest has.
func codeID(functionID, digest string) string {
	return functionID + "/" + strings.TrimPrefix(digest, "sha256:")
}

// chunkID returns what follows the prefix in the key of a code's nth chunk; 0 is the
// first.
func chunkID(code string, n int) string {
	if n == 0 {
		return code
	}
	return fmt.Sprintf("%s/%04d", code, n)
}

// firstChunk returns the key of the first chunk of the code to which the chunk at key
// belongs.
func firstChunk(key string) string {
	if strings.Count(key, "/") == len("///") { // two of the prefix, and the one after the function's ID
		return key
	}
	return key[:strings.LastIndexByte(key, '/')]
}

// chunks returns the pairs that store a code.
func chunks(id string, code []byte) (pairs []Pair) {
	for n := 0; n == 0 || len(code) > 0; n++ {
		size := min(chunkSize, len(code))
		pairs = append(pairs, Pair{codeKind.at(chunkID(id, n)), code[:size]})
		code = code[size:]
	}
	return pairs
}

// Code implements faas.Store. It fails with CodeUnknownFunction if there is no such
// version.
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

// stagedKind is the kind of notes that the further chunks of a code are being stored,
// by the function's ID and digest. The version that has the code is stored last, and
// deletes the note. What a crash leaves is cleared up when the store is opened.
var stagedKind = kind[plain]{
	description: description{name: "staged code", prefix: "staged/"},
	note:        func(c *checking, e Entry, _ *plain) { c.staged[e.Key[len("staged/"):]] = true },
}

// commitCode first stores the further chunks of a code, each in a transaction of its
// own, and then commits txn, which stores a version and the first chunk. If txn fails,
// the further chunks are deleted again.
func (s *Store) commitCode(ctx context.Context, txn Txn, id string, further []Pair) error {
	if len(further) == 0 {
		return s.kv.Commit(ctx, txn)
	}
	err := s.stage(ctx, &txn, id, further)
	if err == nil {
		err = s.kv.Commit(ctx, txn)
	}
	if err != nil {
		// If this fails too, the next start does it.
		s.dropStaged(context.WithoutCancel(ctx), id)
	}
	return err
}

// stage stores the further chunks of a code, and has txn delete their note. From the
// second transaction on, the note is a condition: whoever clears up the chunks deletes
// it, too.
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

// dropStaged clears up after a staged code if its note is there. It deletes the chunks,
// unless a version has the code by now.
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
	return nil // somebody else clears up
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
