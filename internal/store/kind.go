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

// kind declares one kind of stored record: everything that the store, the checker
// and its report have to know about it. R is what a record holds. It is stored as
// JSON and has a stamp, or it is a plain.
type kind[R any] struct {
	description

	// key is what follows the prefix in a record's key. It is nil where the record
	// does not say.
	key func(*R) string

	// check says what is wrong with a record by itself, or nil. No record that it
	// refuses is put, and none is read.
	check func(*R) error

	// byCreation orders a list by the revision that created each record, and not by
	// key. A revision is better than a time: two records may have been created at the
	// same time, or by clocks that disagree.
	byCreation bool

	// note has the checker remember what it compares with other records at the end.
	note func(c *checking, e Entry, r *R)
}

// description is what a kind is called and where its records are.
type description struct {
	name   string // of one
	plural string // as the report counts them; empty for a kind that it does not count
	prefix string // of all their keys

	single bool // there is one record, which must be there, and its key is prefix
}

func (d *description) describe() *description { return d }

// at returns the key of a record.
func (d *description) at(id string) string { return d.prefix + id }

// holds reports whether a key is that of a record of the kind.
func (d *description) holds(key string) bool {
	return strings.HasPrefix(key, d.prefix) && (!d.single || key == d.prefix)
}

// stamp is part of every record that is stored as JSON: the schema that it was
// written in.
type stamp struct {
	Schema int `json:"schema"`
}

func (s *stamp) stamped() *stamp { return s }

// plain is a record that is stored as it is.
type plain string

// stored is a record as it was found.
type stored[R any] struct {
	Entry
	id     string // what follows the kind's prefix in the key
	record *R
}

// put returns what puts a record, whose own stamp is set to this schema.
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

// decode returns the record in an entry.
func (k *kind[R]) decode(e Entry) (*R, error) {
	r := new(R)
	var err error
	switch into := any(r).(type) {
	case *plain:
		*into = plain(e.Value)
	case interface{ stamped() *stamp }:
		if err = json.Unmarshal(e.Value, into); err != nil {
			err = errors.New(err.Error()) // what is wrong in it is no mistake of a client's here
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

// examineOwn says what is wrong with a record that is, or is to be, at a key.
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

// get reads a record. One that is not there has the revision 0 and is nil.
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

// pageSize is how many entries one List asks for, so that no read transaction
// is long.
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

// kinds are all kinds of records that there are. The report names them in this order.
var kinds = []anyKind{&functionKind, &versionKind, &tokenKind, &secretKind, &sandboxKind, &nameKind, &codeKind, &stagedKind, &secondCodeKind, &schemaKind, &aviaryKind}

// kindOf returns the kind of the record at a key, or nil for a key that no
// dispatcher writes.
func kindOf(key string) anyKind {
	for _, k := range kinds {
		if k.describe().holds(key) {
			return k
		}
	}
	return nil
}
