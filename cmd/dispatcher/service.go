package main

import (
	"context"
	"slices"
)

// A service is a part of the program that runs from when it is opened until it is
// closed.
type service struct {
	name string
	runs role

	// open begins the service and returns a function that ends it, or nil if nothing
	// has to be done. When open fails, it has already closed whatever it opened.
	open func(context.Context) (closes func(), err error)

	running bool
	closes  func()
}

// A role says on which dispatchers a service runs.
type role int

const (
	onAny     role = iota // on every dispatcher
	onStandby             // on one that waits to take over, while it waits
	onActive              // only on the one that holds the data folder's lock
)

// start opens the service unless it runs already.
func (s *service) start(ctx context.Context) error {
	if s.running {
		return nil
	}
	closes, err := s.open(ctx)
	if err != nil {
		return err
	}
	s.running, s.closes = true, closes
	return nil
}

// stop closes the service if it runs.
func (s *service) stop() {
	if s.running && s.closes != nil {
		s.closes()
	}
	s.running, s.closes = false, nil
}

// services are a program's services in the order in which they are opened. Each may use
// those before it.
type services []*service

// open opens the services one after the other. Those of a standby end before the first
// of the active dispatcher begins, or when opening fails. After a failure the caller
// calls close for the others.
func (all services) open(ctx context.Context) error {
	for _, s := range all {
		if s.runs == onActive {
			all.endWaiting()
		}
		if err := s.start(ctx); err != nil {
			all.endWaiting()
			return err
		}
	}
	return nil
}

// endWaiting closes the services that run only on a standby.
func (all services) endWaiting() {
	for _, s := range all {
		if s.runs == onStandby {
			s.stop()
		}
	}
}

// close closes the services that run, the last one first.
func (all services) close() {
	for _, s := range slices.Backward(all) {
		s.stop()
	}
}
