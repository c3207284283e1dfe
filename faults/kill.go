package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/client"
)

// killing is the state of the row kill.
type killing struct {
	*trial
	d         *dispatcher
	functions []*function
	control   string // address that controls the failpoints
	points    []string
	ledger    ledger
	failing   atomic.Bool // a failpoint makes something fail in this round

	acked, unheard, lost, calls, busy, stopped atomic.Int64
	slowest                                    time.Duration // to reconcile
	settledRounds, strayRounds                 int           // rounds
	byPoint                                    map[string]int
}

// kill kills a dispatcher round after round, at failpoints and elsewhere. After each
// restart it checks that everything acknowledged is there.
func kill(t *trial) error {
	control, err := client.FreeAddr()
	if err != nil {
		return err
	}
	k := &killing{trial: t, control: control, byPoint: map[string]int{}}
	k.d, err = t.prepare(t.failpoints, "k", "GOFAIL_HTTP="+control, "FOB_MAX_SANDBOXES=12", "FOB_LOG_LEVEL=info")
	if err != nil {
		return err
	}
	defer k.d.remove(t.engine)
	for n := range 8 {
		f := &function{name: fmt.Sprintf("f%d", n), off: n%2 == 1}
		if f.off {
			f.name = fmt.Sprintf("off%d", n)
		}
		k.functions = append(k.functions, f)
	}

	// Another dispatcher, with an aviary of its own on the same engine. It lives on,
	// and must keep its only sandbox.
	other, err := t.prepare(t.program, "o", "FOB_POOL=python=0,node=0")
	if err != nil {
		return err
	}
	defer other.remove(t.engine)
	if err := other.boot(); err != nil {
		return err
	}
	if err := other.Put("count?min_scale=1", "n = 0\ndef callme():\n    global n\n    n += 1\n    return n"); err != nil {
		return err
	}

	if err := k.d.boot(); err != nil {
		return err
	}
	// From the first token on, everybody needs one.
	root, err := k.d.MakeToken("root", "", "admin")
	if err != nil {
		return err
	}
	k.d.Token = root.Secret
	k.ledger.tokens = map[string]bool{}
	if k.points, err = k.list(); err != nil {
		return err
	}
	k.d.kill()
	blows := k.blows()
	begun := time.Now()
	told := time.Now()
	for round := range t.rounds {
		if err := k.round(round, blows[round%len(blows)]()); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if text, err := other.Call("count"); err != nil || text != fmt.Sprintf(`{"result": %d}`, round+1) {
			t.violate("round %d: the other aviary's sandbox answers %s, %v", round, text, err)
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			progress("kill: round %d of %d, %.2f s each; %d acknowledged, %d unheard, %d calls",
				round+1, t.rounds, time.Since(begun).Seconds()/float64(round+1), k.acked.Load(), k.unheard.Load(), k.calls.Load())
		}
		if len(t.violations) >= 10 {
			return errors.New("that is enough")
		}
	}
	took := time.Since(begun)

	// Finally, check what is left, and that all of it can be removed.
	if err := k.d.boot("FOB_REMOVE_SANDBOXES=true"); err != nil {
		return err
	}
	k.check()
	if err := k.d.stop(); err != nil {
		t.violate("%v", err)
	}
	leaked, err := t.engine.sandboxes(k.d.aviary)
	if err != nil {
		return err
	}
	if folders := k.d.sockets(); len(leaked)+len(folders) > 0 {
		t.violate("at the end the containers %v and the folders %v are left", leaked, folders)
	}
	if err := other.stop(); err != nil {
		t.violate("%v", err)
	}
	var unhit []string
	for _, point := range k.points {
		if k.byPoint[point] == 0 {
			unhit = append(unhit, point)
		}
	}
	if len(unhit) > 0 && t.rounds >= 200 {
		t.violate("no round ended at %v: the load does not reach them", unhit)
	}
	t.figure("%d rounds, %d of them ended at one of %d failpoints", t.rounds, k.stopped.Load(), len(k.points)-len(unhit))
	t.figure("%d changes acknowledged and %d lost, %d unheard", k.acked.Load(), k.lost.Load(), k.unheard.Load())
	t.figure("%d calls, %d answered 503", k.calls.Load(), k.busy.Load())
	t.figure("reconciled within %.1f s in %d rounds, and not in %d; %d containers left at the end", k.slowest.Seconds(), k.settledRounds, k.strayRounds, len(leaked))
	t.figure("%.2f s a round", took.Seconds()/float64(t.rounds))
	return nil
}

// blow says how a round's dispatcher ends.
type blow struct {
	point string // failpoint; "" for any moment; "answer received" for the client's
	nth   int    // on which passing of it
	late  bool   // counted from when the load begins, not from the start
	terms string // what the failpoint does instead of stopping there; the end then comes at any moment
	after time.Duration
}

func (b blow) String() string {
	switch {
	case b.terms != "":
		return b.point + "=" + b.terms
	case b.point == "":
		return fmt.Sprintf("after %v", b.after)
	}
	if b.late {
		return fmt.Sprintf("%s #%d of the load", b.point, b.nth)
	}
	return fmt.Sprintf("%s #%d", b.point, b.nth)
}

const received = "answer received"

// stops reports whether the dispatcher is to stop at a failpoint.
func (b blow) stops() bool { return b.terms == "" && b.point != "" && b.point != received }

// freeze returns the terms of a failpoint at which the dispatcher is to stop.
func (b blow) freeze() string { return fmt.Sprintf("%d*off->sleep(600000)", b.nth-1) }

// blows returns the ways to end, to be used in turn.
func (k *killing) blows() []func() blow {
	moment := func() time.Duration { return time.Duration(k.random.IntN(600)) * time.Millisecond }
	all := []func() blow{
		func() blow { return blow{after: moment()} },
		func() blow { return blow{after: moment()} },
		func() blow { return blow{point: received, nth: 1 + k.random.IntN(4)} },
		func() blow { return blow{point: received, nth: 1} },
	}
	for _, point := range k.points {
		late := !strings.HasPrefix(point, "adopt")
		all = append(all, func() blow { return blow{point: point, nth: 1 + k.random.IntN(most(point))} },
			func() blow { return blow{point: point, nth: 1 + k.random.IntN(most(point)), late: late} },
			func() blow { return blow{point: point, nth: 1, late: late} })
		if !slices.Contains([]string{"createBegin", "createDone", "startDone", "removeBegin", "loadBegin", "loadDone", "commitEnd"}, point) {
			continue
		}
		all = append(all, func() blow {
			return blow{point: point, terms: fmt.Sprintf("%d*off->1*return", k.random.IntN(most(point))), after: moment()}
		}, func() blow {
			return blow{point: point, terms: fmt.Sprintf("%d*off->1*sleep(%d)", k.random.IntN(most(point)), 50+k.random.IntN(200)), after: moment()}
		})
	}
	k.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// most returns how often a round is expected to pass a failpoint.
func most(point string) int {
	switch {
	case strings.HasPrefix(point, "commit"):
		return 12
	case strings.HasPrefix(point, "adopt"):
		return 1
	}
	return 3
}

// list asks a dispatcher for its failpoints.
func (k *killing) list() ([]string, error) {
	response, err := http.Get("http://" + k.control + "/")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	var points []string
	for _, line := range strings.Fields(string(text)) {
		name, _, _ := strings.Cut(line, "=")
		points = append(points, name)
	}
	if len(points) < 15 {
		return nil, fmt.Errorf("%s has the failpoints %v: that is not all", k.failpoints, points)
	}
	return points, err
}

// round starts the dispatcher, checks it, puts load on it, and kills it.
func (k *killing) round(round int, b blow) error {
	seed := k.random.Uint64()
	k.history.note("round", "round", round, "blow", b.String())
	k.failing.Store(b.terms != "")
	var terms []string
	switch {
	case b.terms != "":
		terms = append(terms, "GOFAIL_FAILPOINTS="+b.point+"="+b.terms)
	case b.stops() && !b.late:
		terms = append(terms, "GOFAIL_FAILPOINTS="+b.point+"="+b.freeze())
	}
	if err := k.d.start(terms...); err != nil {
		return err
	}
	reached := make(chan struct{}) // that the failpoint was reached
	quit := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { k.watch(b, reached, quit) })
	defer watch.Wait()
	defer close(quit)

	if !k.settled(round, reached) {
		k.strike(round, b)
		return nil
	}
	if b.stops() && b.late {
		if err := k.arm(b); err != nil {
			return err
		}
	}
	var load sync.WaitGroup
	over := make(chan struct{})
	heard := make(chan struct{}, 1000)
	for n, f := range k.functions {
		random := rand.New(rand.NewPCG(seed, uint64(n)))
		load.Go(func() { k.change(f, random, over, heard, b) })
		if !f.off {
			load.Go(func() { k.call(f, random.Uint64(), over) })
		}
	}
	load.Go(func() { k.changeSecret(rand.New(rand.NewPCG(seed, 100)), over) })
	load.Go(func() { k.changeTokens(rand.New(rand.NewPCG(seed, 101)), over) })
	limit := time.Second
	if b.point == "" || b.terms != "" {
		limit = b.after
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for answers := 0; ; {
		select {
		case <-reached:
		case <-timer.C:
		case <-heard:
			if answers++; b.point != received || answers < b.nth {
				continue
			}
		}
		break
	}
	if b.terms != "" {
		// The dispatcher must recover from what went wrong without a restart.
		close(over)
		load.Wait()
		k.settled(round, reached)
		k.strike(round, b)
		return nil
	}
	k.strike(round, b)
	close(over)
	load.Wait()
	return nil
}

// strike kills the dispatcher, and records where it was.
func (k *killing) strike(round int, b blow) {
	at := ""
	if b.stops() && k.passed(b) {
		at = b.point
		k.stopped.Add(1)
		k.byPoint[at]++
	}
	k.history.note("kill", "round", round, "at", at)
	k.d.kill()
}

// watch closes reached when the dispatcher stops at the failpoint.
func (k *killing) watch(b blow, reached, quit chan struct{}) {
	if !b.stops() {
		return
	}
	for {
		select {
		case <-quit:
			return
		case <-time.After(3 * time.Millisecond):
		}
		if k.passed(b) {
			close(reached)
			return
		}
	}
}

// arm sets the failpoint of a running dispatcher.
func (k *killing) arm(b blow) error {
	request, err := http.NewRequest("PUT", "http://"+k.control+"/"+b.point, strings.NewReader(b.freeze()))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the failpoint %s cannot be set: %s", b.point, response.Status)
	}
	return nil
}

// passed reports whether the dispatcher has stopped at the failpoint.
func (k *killing) passed(b blow) bool {
	response, err := http.Get("http://" + k.control + "/" + b.point + "/count")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var count int
	_, err = fmt.Fscan(response.Body, &count)
	return err == nil && count >= b.nth
}

// settled waits until the dispatcher is ready and its containers are reconciled, and
// checks everything. It returns false if the failpoint is reached before.
func (k *killing) settled(round int, reached chan struct{}) bool {
	begun := time.Now()
	checked := false
	wrong := "it is not ready"
	for {
		select {
		case <-reached:
			return false
		default:
		}
		if k.d.Over() {
			k.violate("round %d: the dispatcher ended by itself: %s", round, k.d.Log.Tail())
			return false
		}
		if !checked {
			if _, err := k.d.Ask("GET", "/readyz", ""); err == nil {
				checked = k.check()
			}
		} else if wrong = k.stray(); wrong == "" {
			took := time.Since(begun)
			k.slowest = max(k.slowest, took)
			k.settledRounds++
			k.history.note("reconciled", "round", round, "took_ms", took.Milliseconds())
			return true
		}
		if time.Since(begun) > reconcilePatience {
			k.strayRounds++
			k.violate("round %d: not reconciled after %v: %s; the end of the log: %s", round, reconcilePatience, wrong, k.d.Log.Tail())
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// check compares what is there with what was acknowledged. It returns false if the
// dispatcher does not answer, for example because it has stopped at a failpoint.
func (k *killing) check() bool {
	text, err := k.d.Ask("GET", "/api/functions?limit=1000", "")
	if err != nil {
		return false
	}
	var page api.Functions
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		k.violate("the list of functions is %s", text)
		return true
	}
	there := map[string]string{}
	for _, doc := range page.Functions {
		if other, twice := there[doc.Name]; twice {
			k.violate("%s is the name of %s and of %s", doc.Name, other, doc.ID)
		}
		there[doc.Name] = doc.ID
	}
	for _, f := range k.functions {
		now, err := k.d.read(f.name)
		if err != nil {
			if k.d.Over() {
				return false
			}
			k.violate("%v", err)
			continue
		}
		if id := there[f.name]; now == nil && id != "" || now != nil && now.id != id {
			k.violate("%s is %q in the list, and %s by its name", f.name, id, now)
		}
		delete(there, f.name)
		if err := f.found(now); err != nil {
			k.lost.Add(1)
			k.violate("%v", err)
		}
		if now == nil || f.off {
			continue
		}
		// A call that finds a sandbox must be answered by the live version.
		if ids, err := k.d.Running(now.id); err == nil && len(ids) > 0 {
			k.once(f)
		}
	}
	k.checkLedger()
	for name, id := range there {
		k.violate("there is a function %s (%s) that nobody made", name, id)
	}
	return true
}

// stray compares what is there with what the dispatcher knows, and returns what is
// wrong.
func (k *killing) stray() string {
	var refs []string
	for _, f := range k.functions {
		f.mu.Lock()
		if f.acked != nil {
			for n := range f.acked.versions {
				refs = append(refs, fmt.Sprintf("%s@%d", f.name, n+1))
			}
		}
		f.mu.Unlock()
	}
	return k.d.stray(k.engine, refs)
}

// change changes one function again and again until the round is over.
func (k *killing) change(f *function, random *rand.Rand, over chan struct{}, heard chan<- struct{}, b blow) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(random.IntN(40)) * time.Millisecond):
		}
		kind := "PATCH"
		switch n := random.IntN(10); {
		case n < 3:
			kind = "PUT"
		case n < 5:
			kind = "DELETE"
		}
		c := f.plan(kind)
		k.history.note("ask", "name", f.name, "change", c.number, "method", c.method, "path", c.path)
		a, err := k.d.Do(c.method, c.path, c.body)
		if err != nil {
			k.history.note("unheard", "name", f.name, "change", c.number, "error", err)
			k.unheard.Add(1)
			if !k.d.dying.Load() {
				k.violate("%s %s: %v, and the dispatcher lives", c.method, c.path, err)
			}
			return
		}
		k.history.note("answer", "name", f.name, "change", c.number, "status", a.Status)
		var doc api.Registered
		json.Unmarshal([]byte(a.Body), &doc)
		f.settle(c, a.Status/100 == 2, doc.ID)
		switch {
		case a.Status/100 == 2:
			k.acked.Add(1)
			select {
			case heard <- struct{}{}:
			default:
			}
		case a.Status == 503:
			k.busy.Add(1)
		case b.terms == "" || a.Status != 500:
			k.violate("%s %s: %d %s", c.method, c.path, a.Status, a.Body)
		}
	}
}

// call calls one function again and again until the round is over.
func (k *killing) call(f *function, seed uint64, over chan struct{}) {
	random := rand.New(rand.NewPCG(seed, 0))
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(5+random.IntN(30)) * time.Millisecond):
		}
		if !k.once(f) {
			return
		}
	}
}

// once calls a function, and checks that the answer is from a version that was live at
// the time. It returns false if the dispatcher is gone.
func (k *killing) once(f *function) bool {
	f.mu.Lock()
	least, deletes, absent := f.since, f.deletes, f.acked == nil
	if f.open && f.next == nil {
		deletes-- // it is being deleted
	}
	f.mu.Unlock()
	a, err := k.d.Do("GET", "/api/call/"+f.name, "")
	if err != nil {
		if !k.d.dying.Load() {
			k.violate("a call of %s: %v, and the dispatcher lives", f.name, err)
		}
		return false
	}
	f.mu.Lock()
	latest, deleted := f.changes, f.deletes != deletes
	f.mu.Unlock()
	k.calls.Add(1)
	switch {
	case a.Status == 200:
		var number int
		if _, err := fmt.Sscanf(a.Body, `{"result": "`+f.name+`/%d"}`, &number); err != nil || number < least || number > latest {
			k.violate("a call of %s is answered %s, and change %d was acknowledged before, %d sent after", f.name, a.Body, least, latest)
		}
	case a.Status == 404 && (absent || deleted):
	case a.Status == 503:
		k.busy.Add(1)
	default:
		k.violate("a call of %s: %d %s", f.name, a.Status, a.Body)
	}
	return true
}
