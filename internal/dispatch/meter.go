package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// Meter returns an engine that does what engine does, and records in metrics how long
// that took and what failed.
func Meter(engine sandbox.Engine, metrics *telemetry.Metrics) sandbox.Engine {
	return &meteredEngine{Engine: engine, metrics: metrics, known: make(map[string]*meteredInstance)}
}

// meteredEngine measures an engine and its sandboxes. Methods that it does not measure
// are the engine's own.
type meteredEngine struct {
	sandbox.Engine
	metrics *telemetry.Metrics

	mu    sync.Mutex
	known map[string]*meteredInstance // by ID, so that one sandbox has one Instance
}

// meteredInstance measures one sandbox.
type meteredInstance struct {
	sandbox.Instance
	e *meteredEngine
}

// timed calls do and records how long it took and whether it failed. That nobody waits
// for the result any more is not the engine's failure.
func (e *meteredEngine) timed(call string, do func() error) error {
	begun := time.Now()
	err := do()
	e.metrics.EngineCalls.WithLabelValues(call).Observe(time.Since(begun).Seconds())
	failures := e.metrics.EngineErrors.WithLabelValues(call) // from 0 on, so that the first one shows as an increase
	if err != nil && !errors.Is(err, context.Canceled) {
		failures.Inc()
	}
	return err
}

// meter returns the metered instance that stands for one of the engine's.
func (e *meteredEngine) meter(inst sandbox.Instance) *meteredInstance {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.known[inst.ID()]
	if m == nil || m.Instance != inst {
		m = &meteredInstance{inst, e}
		e.known[inst.ID()] = m
	}
	return m
}

func (e *meteredEngine) Prepare(ctx context.Context, langs ...string) error {
	return e.timed("prepare", func() error { return e.Engine.Prepare(ctx, langs...) })
}

func (e *meteredEngine) Create(ctx context.Context, spec sandbox.Spec) (made sandbox.Instance, err error) {
	err = e.timed("create", func() error {
		inst, err := e.Engine.Create(ctx, spec)
		if err == nil {
			made = e.meter(inst)
		}
		return err
	})
	return made, err
}

func (e *meteredEngine) List(ctx context.Context) (all []sandbox.Instance, err error) {
	err = e.timed("list", func() error {
		found, err := e.Engine.List(ctx)
		for _, inst := range found {
			all = append(all, e.meter(inst))
		}
		return err
	})
	return all, err
}

func (m *meteredInstance) Resize(ctx context.Context, limits sandbox.Limits) error {
	return m.e.timed("resize", func() error { return m.Instance.Resize(ctx, limits) })
}

func (m *meteredInstance) Pause(ctx context.Context) error {
	return m.e.timed("pause", func() error { return m.Instance.Pause(ctx) })
}

func (m *meteredInstance) Resume(ctx context.Context) error {
	return m.e.timed("resume", func() error { return m.Instance.Resume(ctx) })
}

func (m *meteredInstance) Remove(ctx context.Context) error {
	err := m.e.timed("remove", func() error { return m.Instance.Remove(ctx) })
	if err == nil {
		m.e.mu.Lock()
		defer m.e.mu.Unlock()
		delete(m.e.known, m.ID())
	}
	return err
}
