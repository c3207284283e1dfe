package docker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
)

// An aviary has one data folder at a time: another one is refused while the first is
// in use, also when that began later, and not after its end, nor long after its death.
func TestDockerClaim(t *testing.T) {
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	aviary := "tclaim" + time.Now().Format("150405.000")[7:]
	of := func(owner string) *claim {
		return &claim{api: api, log: zerolog.Nop(), aviary: aviary, owner: owner, place: "/data/" + owner, renewal: time.Second, time: 4 * time.Second}
	}
	marks := func() int {
		all, err := of("").marks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	a := of("a")
	t.Cleanup(func() {
		for _, c := range []*claim{a, of("b")} {
			if err := c.release(); err != nil {
				t.Error(err)
			}
		}
	})
	if err := a.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, kill := context.WithCancel(t.Context())
	died := make(chan struct{})
	go func() { defer close(died); a.keep(ctx) }()

	if err := of("b").acquire(t.Context()); err == nil || !strings.Contains(err.Error(), "belongs to a running dispatcher with another data folder, /data/a") {
		t.Errorf("a copy that starts beside it: %v", err)
	}
	begin := time.Now()
	if err := of("a").acquire(t.Context()); err != nil || time.Since(begin) > 3*time.Second {
		t.Errorf("the same folder, after %v: %v", time.Since(begin), err)
	}
	kill()
	<-died
	begin = time.Now()
	if err := of("b").acquire(t.Context()); err != nil || time.Since(begin) < time.Second {
		t.Errorf("another folder after its death, and after %v: %v", time.Since(begin), err)
	}
	if n := marks(); n != 1 {
		t.Errorf("there are %d marks", n)
	}
	if err := of("b").release(); err != nil || marks() != 0 {
		t.Errorf("at the end there are %d marks: %v", marks(), err)
	}

	// Two that start at once, of which both have seen no mark: the second takes its
	// own back, whatever the marks are called, and leaves the first one's.
	for range 8 {
		if alone, err := of("a").settle(t.Context()); !alone || err != nil {
			t.Errorf("the first goes on: %v, %v", alone, err)
		}
		if alone, err := of("b").settle(t.Context()); alone || err != nil || marks() != 1 {
			t.Errorf("the second goes on: %v, %v, and there are %d marks", alone, err, marks())
		}
		if err := of("a").release(); err != nil {
			t.Error(err)
		}
	}
	begin = time.Now()
	if err := of("a").acquire(t.Context()); err != nil || time.Since(begin) > time.Second {
		t.Errorf("after its end, and after %v: %v", time.Since(begin), err)
	}
}

// A mark ends by the engine's clock, and when that went back, or says nothing, by ours.
func TestClaimEnds(t *testing.T) {
	c := &claim{time: time.Minute}
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		created string
		seen    time.Duration
		valid   bool
	}{
		"new":                       {"2026-11-27T11:59:30Z", 0, true},
		"old":                       {"2026-11-27T11:58:30Z", 0, false},
		"from the future":           {"2026-11-27T13:00:00Z", 59 * time.Second, true},
		"for a minute":              {"2026-11-27T13:00:00Z", time.Minute, false},
		"of no time":                {"", 0, true},
		"of no time for a minute":   {"", time.Minute, false},
		"new, and there for longer": {"2026-11-27T11:59:30Z", time.Minute, false},
	} {
		if got := c.isValid(test.created, now, test.seen); got != test.valid {
			t.Errorf("%s: it is valid: %v", name, got)
		}
	}
}
