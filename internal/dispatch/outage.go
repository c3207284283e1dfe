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

// outage is a time in which no sandbox can be made: the engine is away, the
// folder for sockets cannot be used, or every start of a language fails. /readyz
// tells of it as long as it lasts, and the log in one line when it begins and one
// when it ends.
type outage struct {
	look chan struct{} // has a token when there is reason to look at once

	mu     sync.Mutex
	cause  error     // nil while there is none
	since  time.Time // when it began
	doubts map[string]*doubt
}

// doubt is whether sandboxes of a language can be started, after one could not be.
// That may be the fault of what the function asks for, so a trial decides: the start
// of a blank sandbox with the default settings.
type doubt struct {
	err    error         // of the start
	trying bool          // a trial goes on
	failed error         // of the last trial, if it failed
	again  time.Time     // when the next one is worth it
	pause  time.Duration // between the two
}

const (
	// engineLook is how often the engine is asked whether all is well, and
	// engineHurry the least time between two looks when there is reason to.
	engineLook  = time.Second
	engineHurry = 100 * time.Millisecond

	// engineTime is how long it may take to say so. A busy machine is slow.
	engineTime = 10 * time.Second

	// firstTrial and lastTrial are the pauses between trials that fail.
	firstTrial = time.Second
	lastTrial  = 10 * time.Second
)

// hurry has the engine looked at soon.
func (o *outage) hurry() {
	select {
	case o.look <- struct{}{}:
	default:
	}
}

// started notes what came of a start.
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

// current returns the cause of the outage that there is, or nil.
func (o *outage) current() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}

// doubted returns the doubt about a language, zero when there is none.
func (o *outage) doubted(lang string) doubt {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.doubts[lang]; d != nil {
		return *d
	}
	return doubt{}
}

// try notes that a trial begins, or has ended.
func (o *outage) try(lang string, begins bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.doubts[lang]; d != nil {
		d.trying = begins
	}
}

// tried notes that a trial failed: the next one waits longer.
func (o *outage) tried(lang string, err error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.doubts[lang]; d != nil {
		d.failed, d.pause = err, min(max(2*d.pause, firstTrial), lastTrial)
		d.again = now.Add(d.pause)
	}
}

// conclude notes what is wrong, or that nothing is, and reports whether that
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

// Outage returns why no sandbox can be made at present, for /readyz, or nil.
func (d *Dispatcher) Outage() *faas.Error {
	d.outage.mu.Lock()
	defer d.outage.mu.Unlock()
	cause := d.outage.cause
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
		d.outage.since.UTC().Format(time.RFC3339), why).After(engineLook)
}

// watchEngine looks at the engine again and again until the dispatcher closes.
func (d *Dispatcher) watchEngine() {
	ticker := time.NewTicker(engineLook)
	defer ticker.Stop()
	for {
		d.lookAtEngine(time.Now())
		if !d.sleep(engineHurry) {
			return
		}
		select {
		case <-d.ctx.Done():
			return
		case <-ticker.C:
		case <-d.outage.look:
		}
	}
}

// lookAtEngine finds out whether there is an outage as of now, and says so if that
// is news.
func (d *Dispatcher) lookAtEngine(now time.Time) {
	cause := d.checkEngine()
	for _, lang := range d.cfg.Langs {
		if cause == nil {
			cause = d.tryLang(lang, now)
		}
	}
	if d.ctx.Err() != nil {
		return
	}
	if cause == nil && d.outage.on() {
		d.forgive() // before anybody hears that all is well
	}
	switch begins, ends, lasted := d.outage.conclude(cause, time.Now()); {
	case begins:
		d.log.Error().Err(cause).Msg("no sandbox can be started: what runs goes on, and /readyz says so until that is over")
	case ends:
		d.log.Info().Dur("lasted", lasted).Msg("sandboxes can be started again")
	}
}

// checkEngine asks the engine whether all is well.
func (d *Dispatcher) checkEngine() error {
	ctx, cancel := context.WithTimeout(d.ctx, engineTime)
	defer cancel()
	err := d.cfg.Engine.Check(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w: it has not answered for %v: %w", sandbox.ErrNoEngine, engineTime, err)
	}
	return err
}

// Prepare makes sure that sandboxes of all languages can be started, as
// sandbox.Engine says. That takes as long as it takes to build what is missing.
func (d *Dispatcher) Prepare(ctx context.Context) error {
	if err := d.cfg.Engine.Prepare(ctx, d.cfg.Langs...); err != nil {
		return err
	}
	for _, lang := range d.cfg.Langs {
		d.outage.started(lang, nil) // what failed before that says nothing any more
	}
	d.lookAtEngine(time.Now())
	return nil
}

// tryLang returns why sandboxes of a language cannot be started, or nil. Where there
// is a doubt it has one made, when the time has come, which the pool then has. It does
// not wait for that.
func (d *Dispatcher) tryLang(lang string, now time.Time) error {
	doubt := d.outage.doubted(lang)
	switch p := d.pools[lang]; {
	case doubt.err == nil:
		return nil
	case doubt.trying:
	case now.Before(doubt.again):
		return doubt.failed
	case d.capacity.try(p.room()):
		d.outage.try(lang, true)
		if !d.background(func() { d.trial(p, doubt) }) {
			d.capacity.give(p.room())
		}
	case errors.Is(doubt.err, sandbox.ErrNoEngine): // it answers again, and there is no room for a trial
		d.outage.started(lang, nil)
		return nil
	default:
		return doubt.failed
	}
	if doubt.failed == nil { // an outage ends no sooner than the trial
		return d.outage.current()
	}
	return doubt.failed
}

// trial starts a blank sandbox, in room that was reserved, to settle a doubt.
func (d *Dispatcher) trial(p *pool, doubt doubt) {
	err := p.start()
	if err == nil && doubt.failed == nil {
		d.log.Warn().Err(doubt.err).Str("lang", p.spec.Lang).Msg("a sandbox could not be started, but another one could")
	}
	d.outage.try(p.spec.Lang, false)
	d.outage.hurry()
}

// forgive has flocks whose starts failed for the engine's sake try again at once.
func (d *Dispatcher) forgive() {
	d.mu.RLock()
	flocks := d.snapshot()
	d.mu.RUnlock()
	for _, f := range flocks {
		f.mu.Lock()
		if faas.CodeOf(f.lastErr) == faas.CodeNoCapacity {
			f.failures, f.lastErr, f.lastFailure = 0, nil, time.Time{}
			f.rescale(time.Now())
		}
		f.mu.Unlock()
	}
}

// complain begins the log line of something that the engine failed at. While the
// log tells of an outage already, or is about to, nobody need read it.
func (d *Dispatcher) complain(err error) *zerolog.Event {
	if _, told := errors.AsType[told](err); told || d.outage.on() || errors.Is(err, sandbox.ErrNoEngine) {
		return d.log.Debug().Err(err)
	}
	return d.log.Warn().Err(err)
}

// engineError turns an engine's failure into what a client is told.
func engineError(err error) error {
	message := "no sandbox could be started"
	if errors.Is(err, sandbox.ErrNoEngine) {
		message = "no sandbox could be started, because the engine that makes them cannot be reached"
	}
	return faas.Errorf(faas.CodeNoCapacity, "%s", message).After(time.Second).Because(err)
}

// told is an error of engineError's, without its cause, of which the log tells as an
// outage, or is about to: it need not do so once more for each call.
type told struct{ error *faas.Error }

func (t told) Error() string { return t.error.Error() }
func (t told) Unwrap() error { return t.error }

// hush makes an error told if that is what it is.
func (d *Dispatcher) hush(err error) error {
	e, ours := errors.AsType[*faas.Error](err)
	if !ours || e.Code != faas.CodeNoCapacity || e.Cause == nil {
		return err
	}
	if away := errors.Is(err, sandbox.ErrNoEngine); !away && !d.outage.on() {
		return err
	} else if away {
		d.outage.hurry()
	}
	quiet := *e
	quiet.Cause = nil
	return told{&quiet}
}
