package store

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Memory is a KV that loses everything when the process ends. It is for tests and
// trials.
type Memory struct {
	mu       sync.Mutex
	entries  map[string]Entry // nil once closed
	revision int64
	feed     *feed
}

// NewMemory returns an empty KV.
func NewMemory() *Memory {
	return &Memory{entries: map[string]Entry{}, revision: 1, feed: newFeed(1)}
}

// Get implements KV.
func (m *Memory) Get(ctx context.Context, key string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return Entry{}, err
	}
	e := m.entries[key]
	e.Key, e.Value = key, bytes.Clone(e.Value)
	return e, nil
}

// List implements KV. It sorts all keys each time, which is fast enough for tests.
func (m *Memory) List(ctx context.Context, prefix, after string, limit int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	var list []Entry
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		if len(list) == limit {
			break
		}
		if strings.HasPrefix(key, prefix) && key > after {
			e := m.entries[key]
			e.Value = bytes.Clone(e.Value)
			list = append(list, e)
		}
	}
	return list, nil
}

// Commit implements KV.
func (m *Memory) Commit(ctx context.Context, txn Txn) error {
	if err := txn.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	for _, c := range txn.If {
		if m.entries[c.Key].Revision != c.Revision {
			return ErrConflict
		}
	}
	m.revision++
	var changes []Change
	gone := slices.Clone(txn.Delete)
	for _, prefix := range txn.DeletePrefix {
		for key := range m.entries {
			if strings.HasPrefix(key, prefix) {
				gone = append(gone, key)
			}
		}
	}
	for _, key := range gone {
		if _, was := m.entries[key]; was {
			delete(m.entries, key)
			changes = append(changes, Change{key, m.revision, true})
		}
	}
	for _, pair := range txn.Put {
		created := m.entries[pair.Key].Created
		if created == 0 {
			created = m.revision
		}
		m.entries[pair.Key] = Entry{Key: pair.Key, Value: bytes.Clone(pair.Value), Created: created, Revision: m.revision}
		changes = append(changes, Change{pair.Key, m.revision, false})
	}
	m.feed.publish(m.revision, changes)
	return nil
}

// Watch implements KV.
func (m *Memory) Watch(ctx context.Context, prefix string, after int64) ([]Change, int64, error) {
	return m.feed.watch(ctx, prefix, after)
}

// Close implements KV.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = nil
	m.feed.close()
	return nil
}

func (m *Memory) usable(ctx context.Context) error {
	if m.entries == nil {
		return ErrClosed
	}
	return ctx.Err()
}
