package observe

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

// Log returns middleware that logs a line about every call at debug level. If that
// level is not logged, it adds no layer.
func Log(log zerolog.Logger) faas.Middleware {
	return func(next faas.Invoker) faas.Invoker {
		if !log.Debug().Enabled() {
			return next
		}
		return &logger{next, log}
	}
}

// logger is an Invoker that logs the calls that it passes on.
type logger struct {
	next faas.Invoker
	log  zerolog.Logger
}

// Invoke implements faas.Invoker.
func (l *logger) Invoke(ctx context.Context, call *faas.Invocation, body faas.LiveBody) (faas.Result, error) {
	result, err := l.next.Invoke(ctx, call, body)
	if over(result, err) {
		l.line(call, result, err)
		return result, err
	}
	answer := result
	return whenOver(result, func(err error) { l.line(call, answer, err) }), nil
}

// line logs a call that has ended.
func (l *logger) line(call *faas.Invocation, result faas.Result, err error) {
	event := l.log.Debug().Str("call", call.ID).Stringer("ref", call.Ref).Stringer("who", &call.Who).Str("outcome", Outcome(err))
	if v := result.Version; v != nil {
		event.Str("function", v.FunctionID).Int("version", v.Number)
	}
	if result.Status != 0 {
		event.Int("status", result.Status)
	}
	timing := result.Timing
	event.Dur("queue", timing.Queue).Dur("start", timing.Start).Dur("run", timing.Run).AnErr("error", err).Msg("call")
}
