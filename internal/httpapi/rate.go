package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/flockofbirds/fob/internal/faas"
)

// Rate limits requests: to so many a second, and to a burst of so many after a pause.
// Its text is "100" (the burst is as large) or "100/200". The zero Rate is no limit;
// its text is "0".
type Rate struct {
	PerSecond float64
	Burst     int
}

// maxRate is far more than a dispatcher can answer.
const maxRate = 1_000_000

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	first, second, both := strings.Cut(string(text), "/")
	n, err := strconv.ParseFloat(first, 64)
	if err == nil && n == 0 && !both {
		*r = Rate{}
		return nil
	}
	burst := int(math.Ceil(min(max(1, n), maxRate)))
	if both && err == nil {
		burst, err = strconv.Atoi(second)
	}
	if err != nil || !(n > 0 && n <= maxRate) || burst < 1 || burst > maxRate {
		return fmt.Errorf("%.40q is not a rate: give requests a second, as in 100, or 100/200 for bursts of 200, each up to %d; 0 is no limit", text, maxRate)
	}
	*r = Rate{n, burst}
	return nil
}

// String returns the rate's text.
func (r Rate) String() string {
	text := strconv.FormatFloat(r.PerSecond, 'f', -1, 64)
	if r.Burst == 0 || float64(r.Burst) == math.Ceil(max(1, r.PerSecond)) {
		return text
	}
	return text + "/" + strconv.Itoa(r.Burst)
}

// failures limits how many requests without a good token an address may make. Guessing
// 256 bits is hopeless at any rate, but it should not fill logs.
var failures = Rate{PerSecond: 10, Burst: 50}

// maxLimiters bounds the memory of one limits. A limiter takes about 150 bytes.
const maxLimiters = 10_000

// limits holds every key to the same rate. A nil limits allows everything.
type limits[K comparable] struct {
	rate Rate

	mu    sync.Mutex
	each  map[K]*rate.Limiter
	rest  *rate.Limiter // of all keys for which there is no room
	swept time.Time
}

func newLimits[K comparable](r Rate) *limits[K] {
	if r == (Rate{}) {
		return nil
	}
	return &limits[K]{rate: r, each: make(map[K]*rate.Limiter), rest: r.limiter()}
}

func (r Rate) limiter() *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }

// allow counts a request of key, and fails with CodeRateLimited if there were too many.
func (l *limits[K]) allow(key K, of string) error {
	if l == nil {
		return nil
	}
	now := time.Now()
	limiter := l.of(key, now)
	if limiter.AllowN(now, 1) {
		return nil
	}
	wait := time.Duration((1 - limiter.TokensAt(now)) / l.rate.PerSecond * float64(time.Second))
	return faas.Errorf(faas.CodeRateLimited, "too many requests %s: %v a second are answered, up to %d at once", of, l.rate.PerSecond, l.rate.Burst).After(wait)
}

// of returns key's limiter.
func (l *limits[K]) of(key K, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limiter := l.each[key]; limiter != nil {
		return limiter
	}
	if len(l.each) >= maxLimiters && now.Sub(l.swept) > time.Second {
		l.swept = now
		for other, limiter := range l.each {
			if limiter.TokensAt(now) >= float64(l.rate.Burst) { // it is as good as a new one
				delete(l.each, other)
			}
		}
	}
	if len(l.each) >= maxLimiters {
		return l.rest
	}
	limiter := l.rate.limiter()
	l.each[key] = limiter
	return limiter
}

// addressOf returns the address for which a request is counted. For IPv6 it is the /64,
// because a customer gets at least that. Requests without an address count together.
func addressOf(r *http.Request) netip.Addr {
	addr, ok := remoteAddr(r)
	if !ok {
		return netip.Addr{}
	}
	if addr.Is6() {
		network, _ := addr.Prefix(64) // every IPv6 address has one
		addr = network.Addr()
	}
	return addr
}
