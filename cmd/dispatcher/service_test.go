package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/client"
	"github.com/flockofbirds/fob/internal/store"
)

// diary is what a list of services does: "+a" when it opens a, "-a" when it closes it.
type diary []string

// service returns one that writes the diary.
func (d *diary) service(name string, runs role) *service {
	return &service{name: name, runs: runs, open: func(context.Context) (func(), error) {
		*d = append(*d, "+"+name)
		return func() { *d = append(*d, "-"+name) }, nil
	}}
}

func (d *diary) wants(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(*d, " "); got != want {
		t.Errorf("it did %s, want %s", got, want)
	}
	*d = nil
}

func TestServicesOpenForwardAndCloseBackward(t *testing.T) {
	var did diary
	silent := &service{open: func(context.Context) (func(), error) { return nil, nil }}
	all := services{did.service("watch", onStandby), did.service("store", onAny), silent, did.service("engine", onActive), did.service("api", onActive)}
	if err := all.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	did.wants(t, "+watch +store -watch +engine +api")
	all.close()
	did.wants(t, "-api -engine -store")
	all.close()
	did.wants(t, "")
}

// After a failure only what was opened is closed, and nothing after it is opened.
func TestServicesCloseWhatWasOpened(t *testing.T) {
	var did diary
	broken := errors.New("broken")
	fails := &service{open: func(context.Context) (func(), error) { return nil, broken }}
	for name, test := range map[string]struct {
		all  services
		want string
	}{
		"the first":        {services{fails, did.service("a", onActive)}, ""},
		"one in between":   {services{did.service("a", onAny), did.service("b", onActive), fails, did.service("c", onActive)}, "+a +b -b -a"},
		"what waits":       {services{did.service("watch", onStandby), fails, did.service("a", onActive)}, "+watch -watch"},
		"the active's own": {services{did.service("watch", onStandby), &service{runs: onActive, open: fails.open}}, "+watch -watch"},
	} {
		if err := test.all.open(t.Context()); err != broken {
			t.Errorf("%s: %v", name, err)
		}
		test.all.close()
		did.wants(t, test.want)
	}
}

// One that was opened before its turn is opened once, and closed in its turn.
func TestServiceBeforeItsTurn(t *testing.T) {
	var did diary
	early := did.service("early", onActive)
	first := did.service("first", onAny)
	open := first.open
	first.open = func(ctx context.Context) (func(), error) {
		early.start(ctx)
		return open(ctx)
	}
	all := services{first, did.service("second", onActive), early}
	if err := all.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.close()
	did.wants(t, "+early +first +second -early -second -first")
}

// A standby opens nothing but what runs on one, until it has the lock.
func TestStandbyRunsNothingOfTheActive(t *testing.T) {
	first := boot(t)
	cfg := testConfig(t)
	cfg.Data, cfg.Standby, cfg.TakeoverAfter = first.cfg.Data, true, time.Minute
	p, err := New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	var did diary
	store := slices.IndexFunc(p.services, func(s *service) bool { return s.name == "store" })
	for i, s := range p.services {
		if i < store && s.runs != onStandby || i > store && s.runs != onActive {
			t.Errorf("%s is to run on %d", s.name, s.runs)
		}
		open := s.open
		s.open = func(ctx context.Context) (func(), error) {
			did = append(did, "+"+s.name)
			return open(ctx)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, func() { t.Error("it is ready") }) }()
	eventually(t, time.Minute, "it is on standby", func() bool {
		a, err := (&client.Client{URL: p.URL()}).Do("GET", "/readyz", "")
		return err == nil && strings.Contains(a.Body, `"standby"`)
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	did.wants(t, "+takeover +store")
	if _, err := first.asks.Register("", "def callme(): return 1"); err != nil {
		t.Error(err)
	}
}

// A program whose opening fails half way leaves nothing open.
func TestOpenFailsHalfWay(t *testing.T) {
	cfg := testConfig(t)
	cfg.KeyFile = filepath.Join(cfg.Data, "secret.key")
	if err := os.WriteFile(cfg.KeyFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := p.Run(ctx, func() { t.Error("it is ready"); cancel() }); err == nil || !strings.Contains(err.Error(), cfg.KeyFile) {
		t.Errorf("it ended with %v", err)
	}
	cancel()
	for _, s := range p.services {
		if s.running {
			t.Errorf("%s still runs", s.name)
		}
	}
	db, err := store.Open(t.Context(), filepath.Join(cfg.Data, databaseName), false)
	if err != nil {
		t.Fatal("the lock is held: ", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if nc, err := dialControl(t.Context(), cfg.Data); !noneListens(err) {
		t.Errorf("the control socket is open: %v, %v", nc, err)
	}
	if nc, err := net.Dial("tcp", p.listener.Addr().String()); err == nil {
		nc.Close()
		t.Error("the address is open")
	}
}
