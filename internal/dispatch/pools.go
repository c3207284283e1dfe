package dispatch

import (
	"sync"
	"time"
)

// pools are the pools of all languages. They share a bound on blank sandboxes.
type pools struct {
	all       []*pool // in the order of the languages
	capacity  *capacity
	allotting sync.Mutex // held while shares are allotted
}

func newPools(d *Dispatcher) *pools {
	ps := &pools{capacity: d.capacity}
	for _, lang := range d.cfg.Langs {
		ps.all = append(ps.all, newPool(d, lang, d.cfg.Pool[lang], d.cfg.PoolMax))
		d.cfg.Metrics.PoolDry.WithLabelValues(lang) // from 0 on, so that the first one shows as an increase
	}
	ps.allot()
	return ps
}

// of returns the pool of a language that has a driver.
func (ps *pools) of(lang string) *pool {
	for _, p := range ps.all {
		if p.spec.Lang == lang {
			return p
		}
	}
	return nil
}

// allot sets how many sandboxes each pool is to have now, so that all of them together
// stay within the bound.
func (ps *pools) allot() {
	now := time.Now()
	ps.allotting.Lock()
	defer ps.allotting.Unlock()
	targets := make([]int, len(ps.all))
	most := 0
	for i, p := range ps.all {
		p.mu.Lock()
		p.size = p.size.rested(now)
		targets[i] = p.size.target
		p.mu.Unlock()
		most = ps.capacity.blanks(p.spec.Limits.Memory)
	}
	for i, share := range shares(targets, most) {
		p := ps.all[i]
		p.mu.Lock()
		if share != p.share {
			p.share = share
			p.wake()
		}
		p.mu.Unlock()
	}
}

// blanks returns the blank sandboxes as candidates. They are evicted before any that
// has a function.
func (ps *pools) blanks() []candidate {
	var all []candidate
	for _, p := range ps.all {
		all = append(all, p.evictable()...)
	}
	return all
}

// clear removes all blank sandboxes.
func (ps *pools) clear() {
	for _, p := range ps.all {
		p.clear()
	}
}
