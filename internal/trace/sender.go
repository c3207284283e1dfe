package trace

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// sender is an exporter that counts what it cannot send, and tells of it now and then.
type sender struct {
	sdk.SpanExporter
	room    int64        // for spans that wait
	waiting atomic.Int64 // spans, also those that are being sent
	lost    atomic.Int64 // spans, since that was last told
	failed  func(spans int, err error)
	told    time.Time // only the goroutine that sends uses it, and Close after that
}

// tellEvery is how long the log says nothing of lost spans after it did.
const tellEvery = time.Minute

var (
	errFull   = errors.New("more of them waited than OTEL_BSP_MAX_QUEUE_SIZE allows")
	errClosed = errors.New("the collector did not take them before the dispatcher ended")
)

// admits reports whether so many spans more may wait. If not, they count as lost.
func (s *sender) admits(spans int64) bool {
	if s.waiting.Add(spans) <= s.room {
		return true
	}
	s.waiting.Add(-spans)
	s.lost.Add(spans)
	return false
}

// ExportSpans implements sdk.SpanExporter. It returns no error, which the SDK would
// write to standard error.
func (s *sender) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	s.waiting.Add(-int64(len(spans)))
	if err != nil {
		s.lost.Add(int64(len(spans)))
	}
	if time.Since(s.told) >= tellEvery {
		s.tell(err)
	}
	return nil
}

// tell tells of lost spans, if there are any.
func (s *sender) tell(err error) {
	if err == nil {
		err = errFull
	}
	if lost := s.lost.Swap(0); lost > 0 {
		s.told = time.Now()
		s.failed(int(lost), err)
	}
}
