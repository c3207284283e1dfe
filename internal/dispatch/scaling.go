package dispatch

import (
	"errors"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// scale carries out what the scaler (decide) wants now: it starts, resumes, pauses and
// removes sandboxes of the flock. A flock that has nothing left goes to sleep.
func (f *flock) scale(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rescale(now)
	f.sleep()
}

// rescale carries out what the scaler wants now. The caller holds mu.
func (f *flock) rescale(now time.Time) {
	if f.shutErr != nil {
		f.aim = aim{0, whyOff}
		return
	}
	s := f.version.Settings
	s.MaxConcurrency = min(f.quota.limit, faas.Unlimited) // of the live version
	s.Concurrency = slots(s)
	idle := f.idle()
	l := f.load(s, idle, now)
	d := decide(s, l, now)
	f.aim = d.Aim
	held, short := f.setbacks.hold(now, len(f.birds) > 0), d.Aim.Sandboxes > len(f.birds)+len(f.paused)
	if held {
		d.Start = 0
	}
	switch {
	case short && held:
		f.aim.Why = whyFailing
	case short && f.crowded:
		f.aim.Why = whyNoRoom
	}
	for range d.Start {
		f.starting++
		f.d.background(f.start)
	}
	d.Resume = f.awaken(d.Resume)
	for _, b := range idle[:d.Stop] {
		b.drain()
	}
	rest := idle[max(d.Stop, l.Paused):]
	for _, b := range rest[:d.Pause] {
		b.suspend()
	}
	d.count(f.d.cfg.Metrics)
}

// load returns what the scaler has to know about the flock. The caller holds mu.
func (f *flock) load(s faas.Settings, idle []*bird, now time.Time) load {
	f.noteLine(now)
	l := load{
		Waiting: f.line.len(), Birds: len(f.birds), Paused: len(f.paused), Starting: f.starting, Spent: f.spent(),
		Demand: f.demand.average, Full: f.overfull(), Run: f.run, Retired: f.retired,
	}
	l.Peak = f.peak.note(forDemand(s, l.Demand), now, time.Duration(min(s.StableWindow, s.IdleTimeout)))
	if since, waiting := f.line.since(); waiting {
		if since.Before(f.lastJoin) {
			since = f.lastJoin
		}
		l.Waited = now.Sub(since)
	}
	for _, b := range f.birds {
		l.InFlight += b.inFlight
	}
	for _, b := range idle {
		l.Idle = append(l.Idle, b.idleSince)
	}
	return l
}

// noteLine updates the demand of the calls in line. It must be called whenever the line
// has changed. Calls that wait for the first sandbox do not count, nor do they right
// after it has come: only that sandbox shows how long calls take, and whether it soon
// gets through them. The caller holds mu.
func (f *flock) noteLine(now time.Time) {
	waiting := f.line.len()
	if f.unserved() || now.Sub(f.turned) < growPatience {
		waiting = 0
	}
	f.demand.wait(waiting, now)
}

// start adds a bird, or tells those who wait why there is none.
func (f *flock) start() {
	b, err := f.hatchStored()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting--
	f.crowded = errors.Is(err, f.d.capacity.full)
	if err != nil {
		if !f.crowded { // it is nobody's fault
			f.setbacks.note(err, f.starting > 0)
			f.d.outage.complain(err).Str("function", f.version.FunctionID).Int("version", f.version.Number).Msg("could not start a sandbox")
		}
		if len(f.birds)+len(f.paused)+f.starting == 0 {
			f.refuse(err)
		}
		return
	}
	f.join(b)
}

// hatchStored hatches a bird with the version's stored code.
func (f *flock) hatchStored() (*bird, error) {
	code, err := f.d.cfg.Catalogue.Code(f.d.ctx, f.version)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	awaited := f.line.len() > 0
	f.mu.Unlock()
	patience := roomPatience
	if !awaited { // it is for min_scale, which will be checked again
		patience = 0
	}
	b, err := f.d.hatchery.hatch(f.d.ctx, f.version, code, patience)
	if faas.CodeOf(err) == faas.CodeBadCode {
		// The code could be loaded when it was registered. So this is a failure at run
		// time; for example, a service that it imports from may be down.
		e, _ := errors.AsType[*faas.Error](err)
		return nil, &faas.Error{Code: faas.CodeRaised, Message: e.Message, Raised: e.Raised}
	}
	return b, err
}

// forgive forgets failed starts if they failed because of the engine, and tries again
// at once.
func (f *flock) forgive() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if faas.CodeOf(f.setbacks.err) == faas.CodeNoCapacity {
		f.setbacks = setbacks{}
		f.rescale(time.Now())
	}
}
