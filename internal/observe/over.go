// Package observe is what watches every call: middleware for the metrics and the
// log. Each layer sees a call when it has ended, which for an answer that streams
// is when the answer has.
package observe

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/flockofbirds/fob/internal/faas"
)

// Outcome is how metrics and logs call the way that a call ended: ok, an error
// code, or cancelled when its caller went away before its turn or its end.
func Outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if _, ours := errors.AsType[*faas.Error](err); !ours && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return "cancelled"
	}
	return string(faas.CodeOf(err))
}

// over reports whether a call has ended when Invoke returns. Where the answer
// streams it has not.
func over(result faas.Result, err error) bool { return err != nil || result.Length >= 0 }

// whenOver returns an answer that streams with ended called once at its end.
func whenOver(result faas.Result, ended func(err error)) faas.Result {
	result.Body = &observed{ReadCloser: result.Body, ended: ended}
	return result
}

// observed is the body of an answer that streams. It says once how it ended.
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
