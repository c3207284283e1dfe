package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/auth"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/store"
)

// attach reaches the dispatcher of a data folder over its control socket. It is a
// cli.Running.
func attach(data string) (http.RoundTripper, func() error, error) {
	data, err := ownData(data)
	if err != nil {
		return nil, nil, err
	}
	nc, err := dialControl(context.Background(), data)
	switch {
	case noneListens(err):
		return nil, nil, fmt.Errorf("no dispatcher runs on the data folder %s: start one, or name another with FOB_DATA or FOB_URL", data)
	case err != nil:
		return nil, nil, fmt.Errorf("asking the dispatcher of %s: %w", data, err)
	}
	nc.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, data) }}
	return transport, func() error { transport.CloseIdleConnections(); return nil }, nil
}

// noneListens reports whether an error of dialControl means that no dispatcher runs.
func noneListens(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// local does what attach does. When no dispatcher runs, it answers in this process, as
// far as the store alone can answer. It is a cli.Local.
func local(data string) (http.RoundTripper, func() error, error) {
	data, err := ownData(data)
	if err != nil {
		return nil, nil, err
	}
	nc, err := dialControl(context.Background(), data)
	if !noneListens(err) {
		if err == nil {
			nc.Close()
		}
		return attach(data)
	}
	db, err := store.Open(context.Background(), filepath.Join(data, databaseName), false)
	if err != nil {
		return nil, nil, err
	}
	if m := db.Migrated(); m.From != 0 {
		fmt.Fprintf(os.Stderr, "the database was migrated to schema %d, which older dispatchers do not read; what it was is in %s\n", m.To, m.Backup)
	}
	log, err := audit.Open(data, audit.MaxBytes, toStderr)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	api := httpapi.New(httpapi.Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), Build: build("none"), MaxBody: 6 << 20})
	tokens, err := auth.Open(context.Background(), db, false)
	if err != nil {
		return nil, nil, errors.Join(err, log.Close(), db.Close())
	}
	api.Open(httpapi.Backend{Tokens: tokens, Audit: log, Storage: db})
	return &inProcess{handler: api.Local()}, func() error { return errors.Join(log.Close(), db.Close()) }, nil
}

// auditFile reads the audit log of a data folder. It needs no lock, so it works whether
// a dispatcher runs or not. It is a cli.AuditFile.
func auditFile(data string, after uint64, since time.Time, limit int, emit func(line []byte) error) error {
	if _, err := os.Stat(data); err != nil {
		return fmt.Errorf("the data folder: %w; name another with FOB_DATA, or a dispatcher with FOB_URL", err)
	}
	if _, err := ownData(data); err != nil {
		return err
	}
	query := faas.AuditQuery{After: after, Since: since, Limit: limit, Last: after == 0 && since.IsZero()}
	return audit.Read(data, query, toStderr, emit)
}

// toStderr reports an error that does not stop the command.
func toStderr(err error) { fmt.Fprintln(os.Stderr, err) }

// inProcess is a transport whose requests a handler in this process answers.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper. It pipes the answer's body, so a long answer
// is never held whole.
func (t *inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	body, out := io.Pipe()
	w := &piped{header: make(http.Header), body: out, begun: make(chan struct{})}
	go func() {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler: // the answer broke off
				w.WriteHeader(http.StatusInternalServerError)
				out.CloseWithError(io.ErrUnexpectedEOF)
			default:
				panic(p)
			}
		}()
		t.handler.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK) // does nothing if a status has been written
		out.Close()
	}()
	<-w.begun
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: body, ContentLength: -1, Request: r,
	}, nil
}

// piped is an http.ResponseWriter that writes into a pipe. It closes begun once status
// and sent are set.
type piped struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	status int
	sent   http.Header
}

func (w *piped) Header() http.Header { return w.header }

func (w *piped) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

func (w *piped) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}
