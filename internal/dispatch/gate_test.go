package dispatch

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

func TestNetworkIsPermitted(t *testing.T) {
	most := func(c *config) { c.Network, c.MaxNetwork = network("none"), network("allow=*.example.com,b:5432") }
	simulated(t, most, func(t *testing.T, w *world) {
		fn := w.create("version", "")
		if got := fn.Live().Settings.Network; got != "none" {
			t.Errorf("who says nothing has %s", got)
		}
		for _, set := range []string{"network=none", "network=allow=www.example.com", "network=allow=b:5432,*.example.com"} {
			w.create("version", set)
		}
		for _, set := range []string{"network=egress", "network=allow=example.com", "network=allow=b", "network=allow=*"} {
			_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings(set)})
			outcome{err: err}.fails(t, faas.CodeBadRequest, "FOB_MAX_NETWORK", "allow=*.example.com,b:5432")
			_, _, err = w.Patch(t.Context(), faas.Ref{ID: fn.ID}, settings(set))
			outcome{err: err}.fails(t, faas.CodeBadRequest, "FOB_MAX_NETWORK")
		}
	})
}

// The operator lowers what functions may have: those that have more are not
// clipped, but say so.
func TestNetworkIsPermittedNoMore(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		wide := w.create("version", "network=egress min_scale=1")
		narrow := w.create("version", "network=allow=a")
		w.cfg.Network, w.cfg.MaxNetwork = network("none"), network("allow=*")
		w.restart()
		if running := w.engine.running("version"); len(running) != 1 || running[0].loaded.Function != narrow.ID {
			t.Errorf("%d sandboxes run", len(running))
		}
		for range 2 {
			w.call(t.Context(), faas.Ref{ID: wide.ID}).fails(t, faas.CodeNotPermitted, "network=egress", "allow=*", "FOB_MAX_NETWORK")
		}
		w.call(t.Context(), faas.Ref{ID: narrow.ID}).wants(t, `{"result":1}`)
		// It can be given less, and then goes on.
		next, _, err := w.Patch(t.Context(), faas.Ref{ID: wide.ID}, settings("network=none"))
		if err != nil {
			t.Fatal(err)
		}
		w.call(t.Context(), faas.Ref{ID: next.ID}).wants(t, `{"result":2}`)
		w.call(t.Context(), faas.Ref{ID: next.ID, Version: 1}).fails(t, faas.CodeNotPermitted)
	})
}

func TestRuntimes(t *testing.T) {
	offered := func(c *config) {
		c.Pool, c.PoolMax, c.Runtime, c.Runtimes = map[string]int{"python": 2}, 2, "runsc", []string{"kata"}
	}
	simulated(t, offered, func(t *testing.T, w *world) {
		synctest.Wait()
		runtimes := func(code string) (all string) {
			for _, s := range w.engine.running(code) {
				all += s.Spec().Runtime + " "
			}
			return all
		}
		w.engine.calls["one"], w.engine.calls["two"] = w.engine.calls["version"], w.engine.calls["version"]
		plain := w.create("version", "")
		w.create("one", "runtime=runsc")
		kata := w.create("two", "runtime=kata")
		if got := runtimes("version") + runtimes("one") + runtimes("two"); got != "runsc runsc kata " {
			t.Errorf("the runtimes are %s", got)
		}
		if kinds := counted(t, w.cfg.Metrics, "fob_cold_starts_total", "pooled"); kinds != 2 {
			t.Errorf("%d came from the pool, want those of its runtime", kinds)
		}
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("runtime=runc")})
		outcome{err: err}.fails(t, faas.CodeBadRequest, "runtime=runc", "FOB_RUNTIMES", "kata")

		// Another default: what ran under the old one does not go on.
		w.cfg.Runtime, w.cfg.Runtimes = "kata", nil
		w.restart()
		w.call(t.Context(), faas.Ref{ID: plain.ID}).wants(t, `{"result":1}`)
		w.call(t.Context(), faas.Ref{ID: kata.ID}).wants(t, `{"result":1}`)
		if got := runtimes("version") + runtimes("two"); got != "kata kata " {
			t.Errorf("after the change they are %s", got)
		}
	})
}

func TestGate(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		var atLoad int
		w.engine.loads["asks"] = func(s *fakeSandbox) string {
			atLoad = s.knock("evil.example:443")
			return ""
		}
		w.engine.calls["asks"] = w.engine.calls["version"]
		fn := w.create("asks", "network=allow=good.example")
		if atLoad != 403 {
			t.Errorf("at import the proxy answers %d", atLoad)
		}
		s := w.engine.there()[0]
		if s.loaded.Proxy != sandbox.ProxyName || s.Spec().Network != faas.NetworkNone {
			t.Errorf("loaded with %+v in %+v", s.loaded, s.Spec())
		}
		if status := s.knock("evil.example:443"); status != 403 {
			t.Errorf("the proxy answers %d", status)
		}
		if n := counted(t, w.cfg.Metrics, "fob_egress_requests_total", "refused_host"); n != 1 {
			t.Errorf("counted %d requests", n)
		}
		// The next dispatcher listens anew, and before calls of the last one's have ended.
		old := s.proxy
		s.state.InFlight = 1
		w.restart()
		if s.proxy == old || s.knock("evil.example:443") != 403 {
			t.Error("there is no new proxy")
		}
		s.mu.Lock()
		s.state.InFlight = 0
		s.mu.Unlock()
		time.Sleep(time.Second)
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)

		if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if status := s.knock("evil.example:443"); status != 0 {
			t.Errorf("after the sandbox's end the proxy answers %d", status)
		}
		if n := counted(t, w.cfg.Metrics, "fob_egress_requests_total"); n != 0 {
			t.Errorf("%d requests of a deleted function are counted", n)
		}
	})
}

func TestGateCannotBeOpened(t *testing.T) {
	simulated(t, func(c *config) { c.Pool, c.PoolMax, c.Network = map[string]int{"python": 1}, 1, network("none") }, func(t *testing.T, w *world) {
		synctest.Wait()
		fn := w.create("version", "network=allow=a")
		w.engine.there()[0].locked = true
		w.restart() // removes what cannot be given its way out
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		synctest.Wait()
		for _, s := range w.engine.there() {
			s.mu.Lock()
			s.locked = true
			s.mu.Unlock()
		}
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("network=allow=a")})
		outcome{err: err}.fails(t, faas.CodeNoCapacity)
	})
}

// Code that cannot be loaded leaves no proxy behind; simulated looks.
func TestGateOfBadCode(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.loads["bad"] = func(*fakeSandbox) string {
			return "HTTP/1.1 422 x\r\nFob-Error: load_failed\r\nContent-Length: 51\r\n\r\n" + `{"error": {"code": "load_failed", "message": "bad"}}`
		}
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "bad", Settings: settings("network=allow=a")})
		if err == nil || strings.Contains(err.Error(), "network") {
			t.Errorf("it was loaded: %v", err)
		}
	})
}

// Under a runtime that cannot resize, what needs other limits is created.
func TestFixedLimits(t *testing.T) {
	simulated(t, func(c *config) { c.Pool, c.PoolMax, c.Runtime = map[string]int{"python": 1}, 1, "rigid" }, func(t *testing.T, w *world) {
		synctest.Wait()
		for range 2 {
			fn := w.create("version", "memory=256MB")
			w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
			synctest.Wait()
		}
		w.create("version", "")
		if pooled := counted(t, w.cfg.Metrics, "fob_cold_starts_total", "pooled"); pooled != 1 {
			t.Errorf("%d came from the pool, want the one with the default limits", pooled)
		}
	})
}
