package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// outage is a time in which no sandbox can be made: the engine is away, the folder for
// sockets cannot be used, or every start of a language fails. /readyz reports it as
// long as it lasts. The log has one line when it begins and one when it ends.
type outage struct {
	*lifetime
	engine sandbox.Engine
	langs  []string
	log    zerolog.Logger
	pools  *pools        // they get the sandboxes of trials
	over   func()        // called at the end of an outage, before anybody hears of the end
	look   chan struct{} // has a token when there is a reason to check at once

	mu     sync.Mutex
	cause  error     // nil if there is no outage
	since  time.Time // when it began
	doubts map[string]*doubt
}

// A doubt is about whether sandboxes of a language can be started, after a start has
// failed. It may have failed because of what the function asks for, so a trial decides:
// the start of a blank sandbox with the default settings.
type doubt struct {
	err    error         // of the failed start
	trying bool          // a trial is going on
	failed error         // error of the last trial, or nil
	again  time.Time     // when the next trial is due
	pause  time.Duration // between the two
}

const (
	// engineLook is how often the engine is checked. engineHurry is the shortest time
	// between two checks, when there is a reason for one.
	engineLook  = time.Second
	engineHurry = 100 * time.Millisecond

	// engineTime is how long a check may take. A busy machine is slow.
	engineTime = 10 * time.Second

	// firstTrial and lastTrial are the first and the longest pause between trials that
	// fail.
	firstTrial = time.Second
	lastTrial  = 10 * time.Second
)

func newOutage(life *lifetime, cfg Config, over func()) *outage {
	return &outage{
		lifetime: life, engine: cfg.Engine, langs: cfg.Langs, log: cfg.Log, over: over,
		look: make(chan struct{}, 1), doubts: make(map[string]*doubt),
	}
}

// hurry has the engine checked soon.
func (o *outage) hurry() {
	select {
	case o.look <- struct{}{}:
	default:
	}
}

// started records the outcome of a start.
func (o *outage) started(lang string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch d := o.doubts[lang]; {
	case err == nil:
		delete(o.doubts, lang)
	case d == nil:
		o.doubts[lang] = &doubt{err: err}
		o.hurry()
	}
}

// on reports whether there is an outage.
func (o *outage) on() bool { return o.current() != nil }

// current returns the cause of the present outage, or nil.
func (o *outage) current() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}

// doubted returns the doubt about a language, or a zero doubt if there is none.
func (o *outage) doubted(lang string) doubt {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.doubts[lang]; d != nil {
		return *d
	}
	return doubt{}
}

// try records that a trial begins or has ended.
func (o *outage) try(lang string, begins bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.doubts[lang]; d != nil {
		d.trying = begins
	}
}

// tried records that a trial failed. The next one waits longer.
func (o *outage) tried(lang string, err error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.doubts[lang]; d != nil {
		d.failed, d.pause = err, min(max(2*d.pause, firstTrial), lastTrial)
		d.again = now.Add(d.pause)
	}
}

// conclude records what is wrong, or with nil that nothing is, and reports whether that
// begins or ends an outage.
func (o *outage) conclude(cause error, now time.Time) (begins, ends bool, lasted time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	begins, ends = o.cause == nil && cause != nil, o.cause != nil && cause == nil
	if begins {
		o.since = now
	}
	o.cause = cause
	return begins, ends, now.Sub(o.since)
}

// report returns why no sandbox can be made at present, for /readyz, or nil.
func (o *outage) report() *faas.Error {
	o.mu.Lock()
	defer o.mu.Unlock()
	cause := o.cause
	if cause == nil {
		return nil
	}
	why := "every start fails"
	switch {
	case errors.Is(cause, sandbox.ErrNoEngine):
		why = "the engine that makes them cannot be reached"
	case errors.Is(cause, sandbox.ErrNoFolder):
		why = "the folder for their sockets cannot be used"
	}
	return faas.Errorf(faas.CodeNoCapacity, "no sandbox can be started since %s, because %s; the dispatcher's log says more",
		o.since.UTC().Format(time.RFC3339), why).After(engineLook)
}

// watch checks the engine regularly until the dispatcher closes.
func (o *outage) watch() {
	ticker := time.NewTicker(engineLook)
	defer ticker.Stop()
	for {
		o.lookAround(time.Now())
		if !o.sleep(engineHurry) {
			return
		}
		select {
		case <-o.ctx.Done():
			return
		case <-ticker.C:
		case <-o.look:
		}
	}
}

// lookAround finds out whether there is an outage now, and logs a change.
func (o *outage) lookAround(now time.Time) {
	cause := o.check()
	for _, lang := range o.langs {
		if cause == nil {
			cause = o.tryLang(lang, now)
		}
	}
	if o.ctx.Err() != nil {
		return
	}
	if cause == nil && o.on() {
		o.over() // before anybody hears that all is well
	}
	switch begins, ends, lasted := o.conclude(cause, time.Now()); {
	case begins:
		o.log.Error().Err(cause).Msg("no sandbox can be started; those that run go on, and /readyz says so until that is over")
	case ends:
		o.log.Info().Dur("lasted", lasted).Msg("sandboxes can be started again")
	}
}

// check asks the engine whether all is well.
func (o *outage) check() error {
	ctx, cancel := context.WithTimeout(o.ctx, engineTime)
	defer cancel()
	err := o.engine.Check(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w: it has not answered for %v: %w", sandbox.ErrNoEngine, engineTime, err)
	}
	return err
}

// tryLang returns why sandboxes of a language cannot be started, or nil. If there is a
// doubt and a trial is due, it starts a sandbox as a trial, without waiting for it. The
// pool gets that sandbox.
func (o *outage) tryLang(lang string, now time.Time) error {
	doubt := o.doubted(lang)
	switch p := o.pools.of(lang); {
	case doubt.err == nil:
		return nil
	case doubt.trying:
	case now.Before(doubt.again):
		return doubt.failed
	case o.pools.capacity.try(p.room()):
		o.try(lang, true)
		if !o.background(func() { o.trial(p, doubt) }) {
			o.pools.capacity.give(p.room())
		}
	case errors.Is(doubt.err, sandbox.ErrNoEngine): // the engine is back, and there is no room for a trial
		o.started(lang, nil)
		return nil
	default:
		return doubt.failed
	}
	if doubt.failed == nil { // an outage does not end before the trial
		return o.current()
	}
	return doubt.failed
}

// trial starts a blank sandbox to settle a doubt. The caller has reserved the room.
func (o *outage) trial(p *pool, doubt doubt) {
	err := p.start()
	if err == nil && doubt.failed == nil {
		o.log.Warn().Err(doubt.err).Str("lang", p.spec.Lang).Msg("a sandbox could not be started, but another one could")
	}
	o.try(p.spec.Lang, false)
	o.hurry()
}

// complain begins a log line about a failure of the engine. If the log reports an
// outage anyway, or is about to, it is a debug line.
func (o *outage) complain(err error) *zerolog.Event {
	if _, told := errors.AsType[told](err); told || o.on() || errors.Is(err, sandbox.ErrNoEngine) {
		return o.log.Debug().Err(err)
	}
	return o.log.Warn().Err(err)
}

// engineError returns what a client is told about an engine's failure.
func engineError(err error) error {
	message := "no sandbox could be started"
	if errors.Is(err, sandbox.ErrNoEngine) {
		message = "no sandbox could be started, because the engine that makes them cannot be reached"
	}
	return faas.Errorf(faas.CodeNoCapacity, "%s", message).After(time.Second).Because(err)
}

// told is an error of engineError without its cause. The log reports the cause as an
// outage, or is about to, and need not repeat it for each call.
type told struct{ error *faas.Error }

func (t told) Error() string { return t.error.Error() }
func (t told) Unwrap() error { return t.error }

// hush turns an error into a told if it is such an error.
func (o *outage) hush(err error) error {
	e, ours := errors.AsType[*faas.Error](err)
	if !ours || e.Code != faas.CodeNoCapacity || e.Cause == nil {
		return err
	}
	if away := errors.Is(err, sandbox.ErrNoEngine); !away && !o.on() {
		return err
	} else if away {
		o.hurry()
	}
	quiet := *e
	quiet.Cause = nil
	return told{&quiet}
}
