package dispatch

import (
	"errors"
	"testing"
	"time"
)

func TestLineIsFirstComeFirstServed(t *testing.T) {
	var l line
	var waiters []*waiter
	for range 5 {
		waiters = append(waiters, l.join(time.Now()))
	}
	if !l.leave(waiters[1]) || l.leave(waiters[1]) {
		t.Error("a waiter leaves once")
	}
	for i, want := range []*waiter{waiters[0], waiters[2]} {
		b := &bird{}
		if !l.give(b) {
			t.Fatalf("give %d found nobody", i)
		}
		select {
		case g := <-want.given:
			if g.bird != b || g.err != nil {
				t.Errorf("waiter %d was given %+v", i, g)
			}
		default:
			t.Errorf("slot %d went to somebody else than the first in line", i)
		}
		if l.leave(want) {
			t.Error("who was given a slot cannot leave without it")
		}
	}
	if l.len() != 2 {
		t.Errorf("%d wait, want 2", l.len())
	}
	broken := errors.New("broken")
	l.fail(broken)
	for _, w := range waiters[3:] {
		if g := <-w.given; g.err != broken || g.bird != nil {
			t.Errorf("was given %+v, want the error", g)
		}
	}
	if l.len() != 0 || l.give(&bird{}) {
		t.Error("somebody is left in the line")
	}
}
