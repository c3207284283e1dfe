package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"fortio.org/fortio/fhttp"
)

// way is one way of making the same call, by what a client talks to.
type way struct {
	options fhttp.HTTPOptions
	lenient bool // answers other than 200 are counted, and do not fail the bench
	rounds  []load
}

// The ways. (a) to (c) and (e) go to the same sandbox; (d) goes to up to four
// sandboxes, which take one call at a time.
const (
	toDriver = iota
	throughProxy
	toDispatcher
	toFour
	throughForwarder
	allWays
)

// lane has what is needed to compare the ways for one number of clients.
type lane struct {
	clients int
	one     string // the function with one sandbox
	four    string // the function with up to four
	proxy   *baseline
	forward *baseline
	ways    [allWays]way
}

// comparison is the result of the ways, as medians over the rounds, and the ratios of
// (c) to (a) and to (b).
type comparison struct {
	Lang    string
	Clients int

	Driver, Proxy, Dispatcher, Four, Forwarder load

	ToDriver, ToProxy, ToForwarder, FourToDispatcher ratio

	FourSandboxes int // how many (d) used
}

// growth is how (c)'s calls per second grow with more clients.
type growth struct {
	Lang     string
	From, To int // clients
	Ratio    float64
}

// callsReport is the result of calls.
type callsReport struct {
	Comparisons []comparison
	Growth      []growth
}

// calls has clients call a function that does nothing, in each of the ways, for several
// short rounds. Each round has every way and every number of clients, so that they can
// be compared.
func calls(b *bench) (report, error) {
	d, err := b.start("FOB_POOL=python=1,node=1")
	if err != nil {
		return nil, err
	}
	defer d.remove()
	r := &callsReport{}
	for _, lang := range b.langs {
		if err := r.measure(b, d, lang); err != nil {
			return nil, err
		}
	}
	return r, d.Terminate()
}

func (r *callsReport) measure(b *bench, d *dispatcher, lang string) error {
	rounds, duration := pick(b, 7, 3), pick(b, 1500*time.Millisecond, 300*time.Millisecond)
	var lanes []*lane
	defer func() {
		for _, l := range lanes {
			l.proxy.stop()
			l.forward.stop()
		}
	}()
	for _, clients := range b.clients {
		l, err := newLane(d, lang, clients)
		if err != nil {
			return err
		}
		lanes = append(lanes, l)
	}
	for round := range rounds + 1 {
		if round == 0 {
			progress("calling a no-op %s function with %v clients: warming up", lang, b.clients)
		} else {
			progress("calling a no-op %s function with %v clients: round %d of %d", lang, b.clients, round, rounds)
		}
		for _, l := range lanes {
			for turn := range l.ways {
				w := &l.ways[(turn+round)%len(l.ways)] // each is first once in a while
				measured, err := attack(w.options, l.clients, duration)
				if err != nil {
					return err
				}
				if len(measured.Failed) > 0 && !w.lenient {
					return fmt.Errorf("%s: not all calls were answered 200: %v", w.options.URL, measured.Failed)
				}
				if round > 0 {
					w.rounds = append(w.rounds, measured)
				}
			}
		}
	}
	for i, l := range lanes {
		four, err := d.Running(l.four)
		if err != nil {
			return err
		}
		ways := &l.ways
		r.Comparisons = append(r.Comparisons, comparison{
			Lang: lang, Clients: l.clients, FourSandboxes: len(four),
			Driver:           median(ways[toDriver].rounds),
			Proxy:            median(ways[throughProxy].rounds),
			Dispatcher:       median(ways[toDispatcher].rounds),
			Four:             median(ways[toFour].rounds),
			Forwarder:        median(ways[throughForwarder].rounds),
			ToForwarder:      compare(ways[toDispatcher].rounds, ways[throughForwarder].rounds),
			ToDriver:         compare(ways[toDispatcher].rounds, ways[toDriver].rounds),
			ToProxy:          compare(ways[toDispatcher].rounds, ways[throughProxy].rounds),
			FourToDispatcher: compare(ways[toFour].rounds, ways[toDispatcher].rounds),
		})
		if i > 0 {
			from := lanes[i-1]
			r.Growth = append(r.Growth, growth{lang, from.clients, l.clients,
				compare(ways[toDispatcher].rounds, from.ways[toDispatcher].rounds).CallsPerSecond})
		}
		for _, name := range []string{l.one, l.four} {
			if err := d.Delete(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func newLane(d *dispatcher, lang string, clients int) (*lane, error) {
	l := &lane{clients: clients, one: fmt.Sprintf("one-%s-%d", lang, clients), four: fmt.Sprintf("four-%s-%d", lang, clients)}
	for name, settings := range map[string]string{
		// All ways but (d) keep their connections open, and a driver may have a thread
		// for each.
		l.one:  fmt.Sprintf("concurrency=%d&max_scale=1", 4*clients),
		l.four: "concurrency=1&max_scale=4",
	} {
		if err := d.Put(fmt.Sprintf("%s?lang=%s&idle_timeout=1h&%s", name, lang, settings), noop[lang]); err != nil {
			return nil, err
		}
	}
	socket, err := d.socket(l.one)
	if err != nil {
		return nil, err
	}
	if l.proxy, err = startBaseline("proxy", socket); err != nil {
		return nil, err
	}
	if l.forward, err = startBaseline("forwarder", socket); err != nil {
		return nil, err
	}
	driver := fhttp.HTTPOptions{URL: "http://driver/", MethodOverride: "POST"}
	driver.UnixDomainSocket = socket
	l.ways = [allWays]way{
		toDriver:         {options: driver},
		throughProxy:     {options: fhttp.HTTPOptions{URL: l.proxy.url + "/"}},
		toDispatcher:     {options: d.calling(l.one)},
		toFour:           {options: d.calling(l.four), lenient: true},
		throughForwarder: {options: fhttp.HTTPOptions{URL: l.forward.url + "/"}},
	}
	return l, nil
}

func (r *callsReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "no-op call\tclients\t\tcalls/s\tp50\tp99\t")
	for _, c := range r.Comparisons {
		row := func(lang, clients, way string, l load) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%s\t\n", lang, clients, way, l.CallsPerSecond, ms(l.P50), ms(l.P99))
		}
		times := func(ways string, r ratio) {
			fmt.Fprintf(w, "\t\t%s\t× %.2f\t× %.2f\t× %.2f\t\n", ways, r.CallsPerSecond, r.P50, r.P99)
		}
		row(c.Lang, fmt.Sprint(c.Clients), "(a) driver's socket", c.Driver)
		row("", "", "(b) reverse proxy", c.Proxy)
		row("", "", "(c) dispatcher", c.Dispatcher)
		row("", "", fmt.Sprintf("(d) in %d of up to 4 sandboxes", c.FourSandboxes), c.Four)
		row("", "", "(e) bare forwarder", c.Forwarder)
		times("(c) to (a)", c.ToDriver)
		times("(c) to (b)", c.ToProxy)
		times("(c) to (e)", c.ToForwarder)
		times("(d) to (c)", c.FourToDispatcher)
		for _, status := range slices.Sorted(maps.Keys(c.Four.Failed)) {
			fmt.Fprintf(w, "\t\t(d) answered %d\t%d calls\t\t\t\n", status, c.Four.Failed[status])
		}
	}
	w.Flush()
}

func (r *callsReport) targets() []target {
	var all []target
	for _, c := range r.Comparisons {
		switch c.Clients {
		case 1:
			all = append(all, atMost(.75, c.ToProxy.P50, "", "%s, 1 client: p50 of (c) to (b)", c.Lang))
		case 16:
			all = append(all, atLeast(1.7, c.ToProxy.CallsPerSecond, "", "%s, 16 clients: calls/s of (c) to (b)", c.Lang),
				atLeast(.5, c.ToDriver.CallsPerSecond, "", "%s, 16 clients: calls/s of (c) to (a)", c.Lang))
		}
	}
	for _, g := range r.Growth {
		if g.From == 16 && g.To == 64 {
			all = append(all, atLeast(1, g.Ratio, "", "%s: calls/s of (c) at 64 clients to those at 16", g.Lang))
		}
	}
	return all
}
