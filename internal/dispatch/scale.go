package dispatch

import (
	"errors"
	"slices"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// scale does what the scaler decides as of now.
func (f *flock) scale(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rescale(now)
	f.sleep()
}

// rescale does what scale says. The caller holds mu.
func (f *flock) rescale(now time.Time) {
	if f.shutErr != nil {
		return
	}
	s := f.version.Settings
	s.MaxConcurrency = min(f.quota.limit, faas.Unlimited) // the live version's
	idle := f.idle()
	l := f.load(s, idle, now)
	d := decide(s, l, now)
	if now.Sub(f.lastFailure) < f.backoff() {
		d.Start = 0
	}
	for range d.Start {
		f.starting++
		f.d.background(f.start)
	}
	resumed := f.awaken(d.Resume)
	for _, b := range idle[:d.Stop] {
		f.drain(b)
	}
	rest := idle[max(d.Stop, l.Paused):]
	for _, b := range rest[:d.Pause] {
		f.suspend(b)
	}
	f.decided("start", d.Start+resumed)
	f.decided("stop", d.Stop)
	f.decided("pause", d.Pause)
}

// decided counts what the scaler decided, in sandboxes.
func (f *flock) decided(what string, sandboxes int) {
	if sandboxes > 0 {
		f.d.cfg.Metrics.Decisions.WithLabelValues(what).Add(float64(sandboxes))
	}
}

// idle lists the birds that the scaler may stop, in the order of load.Idle. The
// caller holds mu.
func (f *flock) idle() []*bird {
	longest := func(a, b *bird) int { return a.idleSince.Compare(b.idleSince) }
	idle := slices.Clone(f.paused)
	slices.SortFunc(idle, longest)
	for _, b := range f.birds {
		if b.inFlight == 0 {
			idle = append(idle, b)
		}
	}
	slices.SortFunc(idle[len(f.paused):], longest)
	return idle
}

// load tells the scaler about the flock. The caller holds mu.
func (f *flock) load(s faas.Settings, idle []*bird, now time.Time) load {
	f.noteLine(now)
	l := load{
		Waiting: f.line.len(), Birds: len(f.birds), Paused: len(f.paused), Starting: f.starting,
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

// noteLine counts those in line as demand, each time that the line has changed.
// Those who wait for the first sandbox are none yet, nor are they right after it
// has come: only it shows how long they take, and whether it soon gets through
// them. The caller holds mu.
func (f *flock) noteLine(now time.Time) {
	waiting := f.line.len()
	if len(f.birds) == 0 || now.Sub(f.turned) < growPatience {
		waiting = 0
	}
	f.demand.wait(waiting, now)
}

// start adds a bird, or tells those who wait why there is none.
func (f *flock) start() {
	b, err := f.hatch()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting--
	if err != nil {
		if !errors.Is(err, f.d.capacity.full) {
			f.failed(err)
		}
		if len(f.birds)+len(f.paused)+f.starting == 0 {
			f.refuse(err)
		}
		return
	}
	f.join(b)
}

// failed notes a start that failed for more than want of room. The caller holds
// mu.
func (f *flock) failed(err error) {
	if f.starting == 0 { // several at once count as one
		f.failures++
	}
	f.lastFailure, f.lastErr = time.Now(), err
	f.d.complain(err).Str("function", f.version.FunctionID).Int("version", f.version.Number).Msg("could not start a sandbox")
}
