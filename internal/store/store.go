package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/flockofbirds/fob/internal/faas"
)

// pageSize is how many entries one List asks for, so that no read transaction
// is long.
const pageSize = 1000

// Store keeps the typed records in a KV. It implements faas.Store and
// faas.SecretStore.
type Store struct{ kv KV }

var (
	_ faas.Store       = (*Store)(nil)
	_ faas.SecretStore = (*Store)(nil)
)

// Open opens the bolt file at path, as OpenBolt does, and the store in it.
func Open(ctx context.Context, path string, wait bool, locked ...func()) (*Store, error) {
	kv, err := OpenBolt(ctx, path, wait, locked...)
	if err != nil {
		return nil, err
	}
	s, err := New(ctx, kv)
	if err != nil {
		return nil, errors.Join(err, kv.Close())
	}
	return s, nil
}

// New returns the store in kv, which it initialises when kv is empty. It fails
// when kv holds something else or what a newer dispatcher wrote. The store
// closes kv; when New fails the caller does.
func New(ctx context.Context, kv KV) (*Store, error) {
	// Listed first: the schema is among the first that is ever put, so once
	// something is listed it must be found.
	some, err := kv.List(ctx, "", "", 1)
	if err != nil {
		return nil, err
	}
	if len(some) == 0 {
		if err := initialise(ctx, kv); err != nil {
			return nil, err
		}
	}
	found, err := kv.Get(ctx, keySchema)
	if err != nil {
		return nil, err
	}
	if err := checkSchemaRecord(found); err != nil {
		return nil, err
	}
	return &Store{kv}, nil
}

// initialise makes an empty KV a store. When another dispatcher is quicker,
// that one's aviary stands.
func initialise(ctx context.Context, kv KV) error {
	aviary := make([]byte, 4)
	rand.Read(aviary) // never fails, by its documentation
	err := kv.Commit(ctx, Txn{
		If: []Condition{{keySchema, 0}, {keyAviary, 0}},
		Put: []Pair{
			{keySchema, []byte(strconv.Itoa(schema))},
			{keyAviary, []byte(hex.EncodeToString(aviary))},
		},
	})
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// Functions implements faas.Store.
func (s *Store) Functions(ctx context.Context) ([]*faas.Function, error) {
	const doing = "read the functions"
	entries, err := s.all(ctx, prefixFunction)
	if err != nil {
		return nil, internal(doing, err)
	}
	// By revision rather than by time: two may have been created at the same
	// time, or by clocks that disagree.
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Created, b.Created) })
	functions := make([]*faas.Function, 0, len(entries))
	for _, e := range entries {
		fn, _, err := decodeFunction(e)
		if err != nil {
			return nil, internal(doing, err)
		}
		if fn.Current, err = s.Version(ctx, fn.ID, fn.Aliases[faas.Live]); err != nil {
			return nil, internal(doing, err)
		}
		functions = append(functions, fn)
	}
	return functions, nil
}

// Version implements faas.Store. It fails with CodeUnknownFunction when there is no
// such version.
func (s *Store) Version(ctx context.Context, functionID string, number int) (*faas.Version, error) {
	const doing = "read the version"
	e, err := s.kv.Get(ctx, versionKey(functionID, number))
	if err == nil && e.Revision == 0 {
		err = s.missing(ctx, e.Key, functionID, number)
	}
	if err != nil {
		return nil, internal(doing, err)
	}
	v, err := decodeVersion(e)
	return v, internal(doing, err)
}

// Code implements faas.Store. It fails with CodeUnknownFunction when there is no
// such version.
func (s *Store) Code(ctx context.Context, functionID string, version int) (string, error) {
	const doing = "read the code"
	v, err := s.Version(ctx, functionID, version)
	if err != nil {
		return "", err
	}
	e, err := s.kv.Get(ctx, codeKey(functionID, v.Digest))
	if err == nil && e.Revision == 0 {
		err = s.missing(ctx, e.Key, functionID, version)
	}
	if err != nil {
		return "", internal(doing, err)
	}
	return string(e.Value), nil
}

// missing says why a record of a version is not there: there is no such version, or
// not any more, or the record is lost.
func (s *Store) missing(ctx context.Context, key, functionID string, number int) error {
	_, fn, _, err := s.function(ctx, functionID)
	if err != nil {
		return err
	}
	if fn.Has(number) {
		return badRecord(key, errors.New("it is not there"))
	}
	return faas.Errorf(faas.CodeUnknownFunction, "function %s has no version %d", functionID, number)
}

// CreateFunction implements faas.Store. It also fails with CodeConflict when
// there is a function with that ID already. An empty sandboxID records none.
func (s *Store) CreateFunction(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	const doing = "store the function"
	if len(fn.Versions) != 1 {
		return internal(doing, fmt.Errorf("a new function has 1 version, not %d", len(fn.Versions)))
	}
	txn, err := putVersion(fn, nil, code, sandboxID)
	if err != nil {
		return internal(doing, err)
	}
	txn.If = []Condition{{functionKey(fn.ID), 0}}
	if fn.Name != "" {
		txn.If = append(txn.If, Condition{nameKey(fn.Name), 0})
		txn.Put = append(txn.Put, Pair{nameKey(fn.Name), []byte(fn.ID)})
	}
	err = s.kv.Commit(ctx, txn)
	if !errors.Is(err, ErrConflict) {
		return internal(doing, err)
	}
	// One of the two conditions failed; a conflict does not say which.
	same, err := s.kv.Get(ctx, functionKey(fn.ID))
	if err != nil {
		return internal(doing, err)
	}
	if same.Revision != 0 || fn.Name == "" {
		return faas.Errorf(faas.CodeConflict, "there is a function %s already", fn.ID)
	}
	return faas.Errorf(faas.CodeNameTaken, "the name %q belongs to another function: choose another, or PUT to add a version to that one", fn.Name)
}

// AddVersion implements faas.Store. It fails with CodeUnknownFunction when the
// function is not there. An empty sandboxID records none.
func (s *Store) AddVersion(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	const doing = "store the version"
	e, stored, versions, err := s.function(ctx, fn.ID)
	if err != nil {
		return internal(doing, err)
	}
	conflict := faas.Errorf(faas.CodeConflict, "function %s was changed by somebody else meanwhile: try again", fn.ID)
	if !followsOn(fn, stored) {
		return conflict
	}
	txn, err := putVersion(fn, versions, code, sandboxID)
	if err != nil {
		return internal(doing, err)
	}
	txn.If = []Condition{{e.Key, e.Revision}}
	if err := s.kv.Commit(ctx, txn); errors.Is(err, ErrConflict) {
		return conflict
	} else if err != nil {
		return internal(doing, err)
	}
	return nil
}

// followsOn reports whether next is stored with one version more. Others may have
// been dropped, and aliases moved.
func followsOn(next, stored *faas.Function) bool {
	last := len(next.Versions) - 1
	return next.ID == stored.ID && next.Name == stored.Name && next.Created.Equal(stored.Created) &&
		next.Latest() == stored.Latest()+1 && next.Live().Number == next.Latest() &&
		!slices.ContainsFunc(next.Versions[:last], func(n int) bool { return !stored.Has(n) })
}

// putVersion returns what stores fn, whose live version is new, where it had the
// others: what it does not have any more goes, and the code that is nobody's then.
func putVersion(fn *faas.Function, had []keptVersion, code, sandboxID string) (Txn, error) {
	v := fn.Live()
	var kept []keptVersion
	var txn Txn
	digests := map[string]bool{} // of code that is there; true: and stays
	for _, old := range had {
		stays := fn.Has(old.Number)
		digests[old.Digest] = digests[old.Digest] || stays
		if stays {
			kept = append(kept, old)
		} else {
			txn.Delete = append(txn.Delete, versionKey(fn.ID, old.Number))
		}
	}
	if _, there := digests[v.Digest]; !there {
		// It is found by its digest from now on, so that must be its own.
		if v.Digest != faas.Digest(code) {
			return Txn{}, fmt.Errorf("the digest %.80q is not that of the code", v.Digest)
		}
		txn.Put = append(txn.Put, Pair{codeKey(fn.ID, v.Digest), []byte(code)})
	}
	digests[v.Digest] = true
	for digest, stays := range digests {
		if !stays {
			txn.Delete = append(txn.Delete, codeKey(fn.ID, digest))
		}
	}
	function, err := encodeFunction(fn, append(kept, keptVersion{v.Number, v.Digest}))
	if err != nil {
		return Txn{}, err
	}
	version, err := encodeVersion(v)
	if err != nil {
		return Txn{}, err
	}
	txn.Put = append(txn.Put, Pair{functionKey(fn.ID), function}, Pair{versionKey(fn.ID, v.Number), version})
	if sandboxID != "" {
		note, err := encodeSandbox(v.Key())
		if err != nil {
			return Txn{}, err
		}
		txn.Put = append(txn.Put, Pair{sandboxKey(sandboxID), note})
	}
	return txn, nil
}

// DeleteFunction implements faas.Store. The records of its sandboxes go with
// it. It fails with CodeUnknownFunction when the function is not there, and
// with CodeConflict when it changes meanwhile.
func (s *Store) DeleteFunction(ctx context.Context, id string) error {
	const doing = "delete the function"
	e, fn, _, err := s.function(ctx, id)
	if err != nil {
		return internal(doing, err)
	}
	notes, err := s.Sandboxes(ctx)
	if err != nil {
		return err
	}
	txn := Txn{
		If:           []Condition{{e.Key, e.Revision}},
		Delete:       []string{e.Key},
		DeletePrefix: []string{versionPrefix(id), codePrefix(id)},
	}
	if fn.Name != "" {
		txn.Delete = append(txn.Delete, nameKey(fn.Name))
	}
	var more []string
	for sandboxID, version := range notes {
		if version.FunctionID != id {
			continue
		}
		if len(txn.Delete) < maxForgotten {
			txn.Delete = append(txn.Delete, sandboxKey(sandboxID))
		} else {
			more = append(more, sandboxID)
		}
	}
	if err := s.kv.Commit(ctx, txn); errors.Is(err, ErrConflict) {
		return faas.Errorf(faas.CodeConflict, "function %s was changed by somebody else meanwhile: try again", id)
	} else if err != nil {
		return internal(doing, err)
	}
	// A record of a sandbox that is left does no harm: it is dropped with the sandbox.
	return s.ForgetSandboxes(ctx, more...)
}

// Sandboxes implements faas.Store.
func (s *Store) Sandboxes(ctx context.Context) (map[string]faas.VersionKey, error) {
	entries, err := s.all(ctx, prefixSandbox)
	if err != nil {
		return nil, internal("read the sandboxes", err)
	}
	notes := make(map[string]faas.VersionKey, len(entries))
	for _, e := range entries {
		key, err := decodeSandbox(e)
		if err != nil {
			return nil, internal("read the sandboxes", err)
		}
		notes[e.Key[len(prefixSandbox):]] = key
	}
	return notes, nil
}

// RecordSandbox implements faas.Store. It syncs all the same: bbolt cannot
// leave one commit unsynced without risking the whole file in a power cut.
func (s *Store) RecordSandbox(ctx context.Context, sandboxID string, version faas.VersionKey) error {
	note, err := encodeSandbox(version)
	if err == nil {
		err = s.kv.Commit(ctx, Txn{Put: []Pair{{sandboxKey(sandboxID), note}}})
	}
	return internal("record the sandbox", err)
}

// ForgetSandboxes implements faas.Store. Those not recorded are no error.
func (s *Store) ForgetSandboxes(ctx context.Context, sandboxIDs ...string) error {
	ids := slices.Compact(slices.Sorted(slices.Values(sandboxIDs)))
	for some := range slices.Chunk(ids, maxForgotten) {
		var txn Txn
		for _, id := range some {
			txn.Delete = append(txn.Delete, sandboxKey(id))
		}
		if err := s.kv.Commit(ctx, txn); err != nil {
			return internal("forget the sandboxes", err)
		}
	}
	return nil
}

// maxForgotten is how many records of sandboxes go in one transaction: etcd allows 128
// operations in one.
const maxForgotten = 100

// Aviary implements faas.Store.
func (s *Store) Aviary(ctx context.Context) (string, error) {
	e, err := s.kv.Get(ctx, keyAviary)
	if err == nil {
		err = checkAviary(e)
	}
	if err != nil {
		return "", internal("read the name of the aviary", err)
	}
	return string(e.Value), nil
}

// Close implements faas.Store.
func (s *Store) Close() error { return internal("close the store", s.kv.Close()) }

// function reads one function, without its live version, and what its versions have
// for code. What is not there is CodeUnknownFunction.
func (s *Store) function(ctx context.Context, id string) (Entry, *faas.Function, []keptVersion, error) {
	e, err := s.kv.Get(ctx, functionKey(id))
	if err != nil {
		return e, nil, nil, err
	}
	if e.Revision == 0 {
		return e, nil, nil, faas.Errorf(faas.CodeUnknownFunction, "there is no function %s", id)
	}
	fn, versions, err := decodeFunction(e)
	return e, fn, versions, err
}

// all lists everything below a prefix.
func (s *Store) all(ctx context.Context, prefix string) ([]Entry, error) {
	var all []Entry
	after := ""
	for {
		page, err := s.kv.List(ctx, prefix, after, pageSize)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < pageSize {
			return all, nil
		}
		after = page[len(page)-1].Key
	}
}

// internal makes err one of the domain, unless it is one already. The cause,
// which may name files, is for the log.
func internal(doing string, err error) error {
	if _, ok := errors.AsType[*faas.Error](err); ok || err == nil {
		return err
	}
	if faas.DiskFull(err) {
		return faas.NoSpace(doing, "FOB_DATA", err)
	}
	return faas.Errorf(faas.CodeInternal, "could not %s: the dispatcher's log says why", doing).Because(err)
}
