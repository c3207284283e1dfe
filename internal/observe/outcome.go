// Package observe watches calls: it has middleware for the metrics, the log and the
// history. Each layer learns how a call ended. If the answer streams, the call ends with
// the answer.
package observe

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/flockofbirds/fob/internal/faas"
)

// cancelled is the outcome of a call whose caller went away.
const cancelled = "cancelled"

// Outcome returns the name that the log and the history have for the way a call ended: ok, an
// error code, or cancelled if its caller went away before its turn or its end.
func Outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if _, ours := errors.AsType[*faas.Error](err); !ours && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return cancelled
	}
	return string(faas.CodeOf(err))
}

// over reports whether a call has ended when Invoke returns. If the answer streams, it
// has not.
func over(result faas.Result, err error) bool { return err != nil || result.Length >= 0 }

// whenOver returns a streaming answer that calls ended once, at its end.
func whenOver(result faas.Result, ended func(err error)) faas.Result {
	result.Body = &observed{ReadCloser: result.Body, ended: ended}
	return result
}

// observed is the body of a streaming answer. It reports once how it ended.
type observed struct {
	io.ReadCloser
	once  sync.Once
	ended func(err error)
}

// Read implements io.Reader.
func (b *observed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		b.once.Do(func() { b.ended(nil) })
	default:
		b.once.Do(func() { b.ended(err) })
	}
	return n, err
}

// Close implements io.Closer.
func (b *observed) Close() error {
	b.once.Do(func() { b.ended(context.Canceled) })
	return b.ReadCloser.Close()
}
