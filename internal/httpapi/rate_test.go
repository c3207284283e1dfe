package httpapi

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"100": {100, 100}, "100/200": {100, 200}, "0.5": {0.5, 1}, "0.5/3": {0.5, 3}, "2.5": {2.5, 3}, "1000000/1000000": {1e6, 1000000}, "0": {},
	} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
		var again Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%s is written %s", text, r)
		}
	}
	for _, text := range []string{"", "/", "100/", "/100", "-1", "x", "NaN", "Inf", "100/0", "100/-1", "100/1.5", "0/5", "1000001", "1/1000001", "1e400", "100 / 200"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %+v", text, r)
		}
	}
}

func TestAddressOf(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.7:1234":                   "192.0.2.7",
		"[::ffff:192.0.2.7]:1234":          "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:1":         "2001:db8:1:2::",
		"[2001:db8:1:2:ffff::]:1":          "2001:db8:1:2::",
		"[fe80::1%eth0]:1":                 "fe80::",
		"@":                                "invalid IP",
		"":                                 "invalid IP",
		"[2001:db8:1:2:3:4:5:6%a b\n]:443": "2001:db8:1:2::",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = from
		if got := addressOf(r).String(); got != want {
			t.Errorf("%s counts as %s, want %s", from, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits[string](Rate{2, 3})
		allowed := func(key string, want int) {
			t.Helper()
			n := 0
			for l.allow(key, "of yours") == nil {
				n++
			}
			if n != want {
				t.Errorf("%d were allowed, want %d", n, want)
			}
		}
		allowed("a", 3)
		allowed("b", 3)
		err, _ := l.allow("a", "of yours").(*faas.Error)
		if err == nil || err.Code != faas.CodeRateLimited || err.RetryAfter != 500*time.Millisecond {
			t.Errorf("refused with %+v", err)
		}
		time.Sleep(time.Second)
		allowed("a", 2)
		time.Sleep(time.Hour)
		allowed("a", 3)

		var none *limits[string]
		if newLimits[string](Rate{}) != nil || none.allow("a", "") != nil {
			t.Error("no rate limits something")
		}
	})
}

// However many come, memory is bounded, those known keep their account, and new
// ones share one until there is room.
func TestLimitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits[int](Rate{1, 2})
		for range 2 {
			for key := range maxLimiters {
				if l.allow(key, "") != nil {
					t.Fatal("refused")
				}
			}
		}
		let := 0
		for key := range 1000 {
			if l.allow(maxLimiters+key, "") == nil {
				let++
			}
		}
		if let != 2 || len(l.each) != maxLimiters || l.allow(7, "") == nil {
			t.Errorf("%d of a thousand more were let in, and %d are known", let, len(l.each))
		}
		time.Sleep(time.Minute)
		if l.allow(maxLimiters+7, "") != nil || len(l.each) != 1 {
			t.Errorf("%d are known after a while", len(l.each))
		}
	})
}

func TestConcurrentLimits(t *testing.T) {
	l := newLimits[int](Rate{0.001, 100})
	var all sync.WaitGroup
	var mu sync.Mutex
	let := map[int]int{}
	for range 8 {
		all.Go(func() {
			for i := range 400 {
				if l.allow(i%2, "") == nil {
					mu.Lock()
					let[i%2]++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if let[0] != 100 || let[1] != 100 {
		t.Errorf("%v were let in, want 100 of each", let)
	}
}

func TestRateLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := guarded(t, false, map[string]string{"ann": "admin", "bob": "admin"})
		a.guard.tokens = newLimits[string](Rate{1, 5})
		a.guard.addresses = newLimits[netip.Addr](Rate{10, 20})
		ask := func(path, from, name string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", path, nil)
			r.RemoteAddr = from
			if name != "" {
				r.Header.Set("Authorization", "Bearer "+secretOf(name))
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			return w
		}
		until := func(path, from, name string) (n int, after string) {
			for n < 1000 {
				w := ask(path, from, name)
				if w.Code == 429 {
					p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 429, faas.CodeRateLimited)
					if !p.Retryable || w.Header().Get("Fob-Error") != "platform" {
						t.Errorf("answered %v %s", w.Header(), w.Body)
					}
					return n, w.Header().Get("Retry-After")
				}
				n++
			}
			return n, ""
		}
		for _, c := range []struct {
			path, from, name string
			want             int
			after            string
		}{
			{"/api/call/hello", "192.0.2.1:1", "ann", 5, "1"}, // the token's
			{"/api/stats", "192.0.2.1:2", "ann", 0, "1"},      // which is one for everything
			{"/api/stats", "192.0.2.1:3", "bob", 5, "1"},
			{"/api/version", "192.0.2.1:4", "", 7, "1"}, // what is left of the address's
			{"/api/nowhere", "192.0.2.1:4", "", 0, "1"},
			{"/api/version", "[2001:db8::1]:1", "", 20, "1"},
			{"/api/version", "[2001:db8::2]:1", "", 0, "1"},
			{"/api/version", "[2001:db8:0:1::2]:1", "", 20, "1"},
			{"/healthz", "192.0.2.1:1", "", 1000, ""},
			{"/readyz", "192.0.2.1:1", "ann", 1000, ""},
		} {
			if n, after := until(c.path, c.from, c.name); n != c.want || after != c.after {
				t.Errorf("%s from %s by %q: %d were answered, then to come again after %q; want %d and %q", c.path, c.from, c.name, n, after, c.want, c.after)
			}
		}
		w := httptest.NewRecorder()
		if a.Local().ServeHTTP(w, httptest.NewRequest("GET", "/api/stats", nil)); w.Code != 200 {
			t.Errorf("the control socket: %d", w.Code)
		}
	})
}

// What is turned away before it comes to a route counts too: a preflight tells
// whether there is a function with that origin.
func TestTurnedAwayIsLimited(t *testing.T) {
	const page = "https://app.example.com"
	for what, c := range map[string]struct {
		request []string
		status  int
	}{
		"another name":           {[]string{"GET", "http://evil.example/api/call/hello"}, 403},
		"another site":           {[]string{"GET", "/api/stats", "Sec-Fetch-Site", "cross-site"}, 403},
		"a preflight of no call": {[]string{"OPTIONS", "/api/functions/hello", "Origin", page, "Access-Control-Request-Method", "GET"}, 403},
		"a preflight":            {[]string{"OPTIONS", "/api/call/hello", "Origin", page, "Access-Control-Request-Method", "GET"}, 204},
		"a page that may, once":  {[]string{"GET", "/api/call/hello", "Origin", page}, 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, registry := guarded(t, true, map[string]string{"ann": "admin"})
			registry.fn.Live().Settings.CORS = page
			a.guard.addresses = newLimits[netip.Addr](Rate{1, 5})
			codes := map[int]int{}
			for range 20 {
				codes[serve(a, c.request[0], c.request[1], "", c.request[2:]...).Code]++
			}
			if got, want := fmt.Sprint(codes), fmt.Sprint(map[int]int{c.status: 5, 429: 15}); got != want {
				t.Errorf("%s: answered %s, want %s", what, got, want)
			}
		})
	}
}

// Whoever has no good token hears so 50 times, and then ten times a second; it
// does not keep others from the same address away.
func TestFailuresAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := guarded(t, false, map[string]string{"ann": "admin"})
		count := func(n int) map[int]int {
			codes := map[int]int{}
			for i := range n {
				// Whether it is there makes no difference.
				codes[serve(a, "GET", "/api/call/"+[]string{"hello", "nobody"}[i%2], "", "Authorization", "Bearer "+secretOf(strconv.Itoa(i))).Code]++
			}
			return codes
		}
		if got := fmt.Sprint(count(200)); got != "map[401:50 429:150]" {
			t.Errorf("guesses were answered %s", got)
		}
		if w := serve(a, "GET", "/api/stats", "", "Authorization", "Bearer "+secretOf("ann")); w.Code != 200 {
			t.Errorf("a good token: %d", w.Code)
		}
		time.Sleep(time.Second)
		if got := fmt.Sprint(count(200)); got != "map[401:10 429:190]" {
			t.Errorf("a second later guesses were answered %s", got)
		}
	})
}
