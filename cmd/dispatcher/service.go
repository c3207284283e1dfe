package main

import (
	"context"
	"slices"
)

// service is a part of the program that runs from when it is opened until it is
// closed.
type service struct {
	name string
	runs role

	// open begins the service and returns what ends it, or nil when nothing has to.
	// When it fails it has closed again what it opened itself.
	open func(context.Context) (closes func(), err error)

	running bool
	closes  func()
}

// role says on which dispatchers a service runs.
type role int

const (
	onAny     role = iota // on each, whatever it does
	onStandby             // on one that waits to take over, and only while it waits
	onActive              // on the one that has the data folder's lock, and on no other
)

// start opens the service, unless it runs.
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

// stop closes the service, if it runs.
func (s *service) stop() {
	if s.running && s.closes != nil {
		s.closes()
	}
	s.running, s.closes = false, nil
}

// services are a program's parts in the order in which they are opened. Each may
// use those before it.
type services []*service

// open opens one after the other. Those of a standby end before the first of the
// active dispatcher begins, and when nothing is waited for any more. After a failure
// close closes what runs by then.
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

// endWaiting closes what runs on a standby alone.
func (all services) endWaiting() {
	for _, s := range all {
		if s.runs == onStandby {
			s.stop()
		}
	}
}

// close closes what runs, the last first.
func (all services) close() {
	for _, s := range slices.Backward(all) {
		s.stop()
	}
}
