package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

// stored is a function to write to a store.
type stored struct {
	name, lang, code string
	settings         faas.SettingsPatch
}

// fill writes functions to the store of a dispatcher that does not run, with the
// dispatcher's own code. Registering them would take a container each, and leave warm
// sandboxes. It returns the aviary's name.
func (d *dispatcher) fill(functions []stored) (aviary string, err error) {
	ctx := context.Background()
	s, err := store.Open(ctx, filepath.Join(d.data, "fob.db"), false)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	jobs := make(chan stored)
	errs := make(chan error, 64)
	var writers sync.WaitGroup
	for range cap(errs) { // concurrent commits share their syncs
		writers.Go(func() {
			var failed error
			for job := range jobs {
				if failed == nil {
					failed = write(ctx, s, job)
				}
			}
			errs <- failed
		})
	}
	for _, fn := range functions {
		jobs <- fn
	}
	close(jobs)
	writers.Wait()
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return "", err
	}
	return s.Aviary(ctx)
}

func write(ctx context.Context, s *store.Store, f stored) error {
	settings, err := f.settings.Apply(faas.DefaultSettings())
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	digest := sha256.Sum256([]byte(f.code))
	fn := &faas.Function{ID: uuid.NewString(), Name: f.name, Created: now}
	v := &faas.Version{
		FunctionID: fn.ID, Number: 1, Lang: f.lang, Settings: settings, Created: now,
		Size: len(f.code), Digest: "sha256:" + hex.EncodeToString(digest[:]),
	}
	return s.CreateFunction(ctx, fn.With(v), f.code, "")
}

// noops returns functions that do nothing. They are called PREFIX-0, PREFIX-1 and so
// on, and take turns in their languages.
func noops(prefix string, count int, langs ...string) []stored {
	functions := make([]stored, count)
	for n := range functions {
		lang := langs[n%len(langs)]
		functions[n] = stored{name: fmt.Sprintf("%s-%d", prefix, n), lang: lang, code: noop[lang]}
	}
	return functions
}
