package httpapi

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// resumeAfter returns the number after which a stream goes on, which is the ID of the last
// event that the client got, or 0 for a new stream. A browser sends nothing but such IDs.
func resumeAfter(h http.Header) (number uint64, err error) {
	text := h.Get("Last-Event-ID")
	if text == "" {
		return 0, nil
	}
	if number, err = strconv.ParseUint(text, 10, 64); err != nil {
		return 0, faas.Errorf(faas.CodeBadRequest, "the header Last-Event-ID is the id of an event of this stream, a number; leave it out to begin with what comes now")
	}
	return number, nil
}

// followCalls answers with calls as they end, each an event or a line of JSON.
func (s *history) followCalls(w http.ResponseWriter, r *http.Request, who *faas.Caller, query faas.CallQuery) error {
	form := formOf(r.Header, true)
	if form != formEvents {
		form = formNDJSON
	}
	subscribe := func(done <-chan struct{}) (iter.Seq[faas.StoredCall], error) { return s.history.Follow(query, done) }
	return follow(s, w, r, who, form, subscribe, func(c faas.StoredCall) (function string, piece []byte) {
		if c.Omitted > 0 {
			piece = form.frame(nil, 0, encode(api.OmittedCalls{Omitted: c.Omitted}))
		}
		return c.Call.Function, form.frame(piece, c.Number, encode(c.Call))
	})
}

// followLines answers with lines of logs as they come.
func (s *history) followLines(w http.ResponseWriter, r *http.Request, who *faas.Caller, query faas.LogQuery, form lineForm) error {
	names := s.namer(r.Context())
	subscribe := func(done <-chan struct{}) (iter.Seq[faas.LogLine], error) { return s.logs.Follow(query, done) }
	return follow(s, w, r, who, form, subscribe, func(l faas.LogLine) (function string, piece []byte) {
		return l.Function, form.append(nil, &l, names(l.Function))
	})
}

// follow answers with what comes to a follower, until the client leaves, may not see it
// any more, or the dispatcher ends. show returns the function that something is of, and
// how it is sent.
func follow[T any](s *history, w http.ResponseWriter, r *http.Request, who *faas.Caller, form lineForm,
	subscribe func(done <-chan struct{}) (iter.Seq[T], error), show func(T) (function string, piece []byte)) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	all, err := subscribe(ctx.Done())
	if err != nil {
		return err
	}
	stream(w, r, string(form), func(yield func([]byte) bool) {
		for one := range all {
			function, piece := show(one)
			if !s.mayStill(ctx, who, function) || !yield(piece) {
				return
			}
		}
	})
	return nil
}

// mayStill reports whether a client may see a call that it has followed until now. Its
// token may have been revoked since, or the function renamed or deleted. A call without a
// function shows nothing of any.
func (s *history) mayStill(ctx context.Context, who *faas.Caller, function string) bool {
	switch who.Kind {
	case faas.CallerTrusted:
		return !s.tokens.Required()
	case faas.CallerToken:
		all, err := s.tokens.List(ctx)
		if err != nil || !slices.ContainsFunc(all, func(t *faas.Token) bool { return t.ID == who.Token.ID && !t.Expired(time.Now()) }) {
			return false
		}
	}
	if function == "" || who.May(faas.ScopeRead, nil) {
		return true
	}
	fn, _, err := s.registry.Resolve(ctx, faas.Ref{ID: function})
	return err == nil && who.May(faas.ScopeRead, fn)
}

// stream answers with pieces as they come. It breaks off if the client does not take one
// for answerPatience.
func stream(w http.ResponseWriter, r *http.Request, media string, pieces iter.Seq[[]byte]) {
	client := http.NewResponseController(w)
	defer client.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", media)
	inert(w.Header())
	w.WriteHeader(http.StatusOK)
	client.Flush()
	for piece := range pieces {
		client.SetWriteDeadline(time.Now().Add(answerPatience))
		_, err := w.Write(piece)
		if err == nil {
			err = client.Flush()
		}
		if err != nil {
			abort(w, r)
		}
	}
}
