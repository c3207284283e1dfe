package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A kind declares one kind of stored record: all that the store, the checker and its
// report have to know about it. R is the record. It is stored as JSON and has a stamp,
// or it is a plain.
type kind[R any] struct {
	description

	// key returns what follows the prefix in a record's key. It is nil if the record
	// does not contain that.
	key func(*R) string

	// check returns what is wrong with a record on its own, or nil. A record that it
	// refuses is neither stored nor read.
	check func(*R) error

	// byCreation sorts lists by the revision that created each record, instead of by
	// key. Revisions are better than times: two records may be created at the same
	// time, or by clocks that disagree.
	byCreation bool

	// note has the checker remember what it compares at the end.
	note func(c *checking, e Entry, r *R)
}

// description says what a kind is called and where its records are.
type description struct {
	name   string // singular
	plural string // as the report counts them; empty for kinds that it does not count
	prefix string // that all their keys have

	single bool // there is exactly one record, and its key is prefix
}

func (d *description) describe() *description { return d }

// at returns the key of a record.
func (d *description) at(id string) string { return d.prefix + id }

// holds reports whether a record of this kind can have that key.
func (d *description) holds(key string) bool {
	return strings.HasPrefix(key, d.prefix) && (!d.single || key == d.prefix)
}

// stamp is part of every record that is stored as JSON. It has the schema in which the
// record was written.
type stamp struct {
	Schema int `json:"schema"`
}

func (s *stamp) stamped() *stamp { return s }

// plain is a record that is stored as it is, not as JSON.
type plain string

// stored is a record with its place in the store.
type stored[R any] struct {
	Entry
	id     string // what follows the prefix in its key
	record *R
}

// put returns the pair that stores a record. It sets the record's stamp to this schema.
func (k *kind[R]) put(id string, r *R) (Pair, error) {
	pair := Pair{Key: k.at(id)}
	err := k.examineOwn(pair.Key, r)
	if err != nil {
		return pair, err
	}
	switch r := any(r).(type) {
	case *plain:
		pair.Value = []byte(*r)
	case interface{ stamped() *stamp }:
		r.stamped().Schema = schema
		pair.Value, err = json.Marshal(r)
	default:
		err = fmt.Errorf("a %s has no stamp", k.name)
	}
	return pair, err
}

// decode returns an entry's record.
func (k *kind[R]) decode(e Entry) (*R, error) {
	r := new(R)
	var err error
	switch into := any(r).(type) {
	case *plain:
		*into = plain(e.Value)
	case interface{ stamped() *stamp }:
		if err = json.Unmarshal(e.Value, into); err != nil {
			err = errors.New(err.Error()) // it is no client's mistake here
		} else {
			err = checkSchema(into.stamped().Schema)
		}
	default:
		err = fmt.Errorf("a %s has no stamp", k.name)
	}
	if err == nil {
		err = k.examineOwn(e.Key, r)
	}
	if err != nil {
		return nil, badRecord(e.Key, err)
	}
	return r, nil
}

// examineOwn returns what is wrong with a record at a key, or nil.
func (k *kind[R]) examineOwn(key string, r *R) error {
	if k.check != nil {
		if err := k.check(r); err != nil {
			return err
		}
	}
	if k.key != nil {
		if own := k.key(r); k.at(own) != key {
			return fmt.Errorf("it belongs to another %s, %s %q", k.name, k.name, own)
		}
	}
	return nil
}

// get reads a record. If there is none, the record is nil and its revision 0.
func (k *kind[R]) get(ctx context.Context, kv KV, id string) (stored[R], error) {
	e, err := kv.Get(ctx, k.at(id))
	s := stored[R]{Entry: e, id: id}
	if err == nil && e.Revision != 0 {
		s.record, err = k.decode(e)
	}
	return s, err
}

// list reads all records of the kind, in its order.
func (k *kind[R]) list(ctx context.Context, kv KV) ([]stored[R], error) {
	var all []stored[R]
	for after := ""; ; {
		page, err := kv.List(ctx, k.prefix, after, pageSize)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			r, err := k.decode(e)
			if err != nil {
				return nil, err
			}
			all = append(all, stored[R]{e, e.Key[len(k.prefix):], r})
		}
		if len(page) < pageSize {
			break
		}
		after = page[len(page)-1].Key
	}
	if k.byCreation {
		slices.SortFunc(all, func(a, b stored[R]) int { return cmp.Compare(a.Created, b.Created) })
	}
	return all, nil
}

// pageSize is how many entries one List asks for, which keeps read transactions short.
const pageSize = 1000

// examine implements anyKind.
func (k *kind[R]) examine(c *checking, e Entry) error {
	r, err := k.decode(e)
	if err == nil && k.note != nil {
		k.note(c, e, r)
	}
	return err
}

// anyKind is a kind as the checker sees it.
type anyKind interface {
	describe() *description
	examine(*checking, Entry) error
}

// kinds are all kinds of records. The report names them in this order.
var kinds = []anyKind{&functionKind, &versionKind, &tokenKind, &secretKind, &sandboxKind, &nameKind, &codeKind, &stagedKind, &secondCodeKind, &schemaKind, &aviaryKind}

// kindOf returns the kind of the record at a key, or nil if no dispatcher writes such a
// key.
func kindOf(key string) anyKind {
	for _, k := range kinds {
		if k.describe().holds(key) {
			return k
		}
	}
	return nil
}
