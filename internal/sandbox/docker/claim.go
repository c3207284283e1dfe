package docker

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
)

const (
	// renewal is how often a claim is renewed, which everybody sees who follows the
	// engine's events, and claimTime how long it is one without: so long waits who
	// finds one that a crash has left.
	renewal   = 20 * time.Second
	claimTime = time.Minute

	labelOwner = "fob.owner"
	labelPlace = "fob.place"
)

// claim is an aviary's owner's mark at the engine: a volume, empty, whose labels name
// the data folder, and which is made anew again and again. A data folder that was
// copied has the aviary's name too, and both dispatchers would take the other's
// sandboxes for strays; so one that finds a mark of another folder's waits, and ends
// if the mark is renewed. Whoever has the same folder, as a standby or after a crash,
// has the same mark, and does not wait.
type claim struct {
	api    *client.Client
	log    zerolog.Logger
	aviary string
	owner  string // the data folder's identity
	place  string // and what people call it

	renewal, time time.Duration

	seen map[string]time.Time // when others' marks were first seen, by our own clock
	lost bool                 // somebody else has a mark, and the log has said so
}

// acquire makes the aviary ours. It fails when another data folder's dispatcher runs
// with it.
func (c *claim) acquire(ctx context.Context) error {
	for {
		if err := c.await(ctx); err != nil {
			return err
		}
		if alone, err := c.settle(ctx); alone || err != nil {
			return err
		}
		if err := sleep(ctx, rand.N(c.renewal/4)); err != nil {
			return err
		}
	}
}

// await returns once no valid mark of another data folder's is there, and fails when
// one is renewed.
func (c *claim) await(ctx context.Context) error {
	first, err := c.others(ctx)
	said := time.Time{}
	for now := first; err == nil && len(now) > 0; now, err = c.others(ctx) {
		for _, v := range now {
			if !slices.ContainsFunc(first, func(old *volume.Volume) bool { return old.Name == v.Name }) {
				return c.inUse(v)
			}
		}
		if time.Since(said) > c.renewal {
			said = time.Now()
			c.log.Info().Str("aviary", c.aviary).Str("folder", now[0].Labels[labelPlace]).Dur("longest_ms", c.time).
				Msg("the aviary is marked as another data folder's: waiting whether that is in use")
		}
		if err := sleep(ctx, c.renewal/10); err != nil {
			return err
		}
	}
	return err
}

// settle makes our mark, and takes it back when somebody else has made one too, which
// it reports. Of two that do so at once each may see the other, but never neither.
func (c *claim) settle(ctx context.Context) (alone bool, err error) {
	rivals, err := c.renew(ctx)
	if err != nil || !rivals {
		return err == nil, err
	}
	others, err := c.others(ctx)
	if err == nil && len(others) == 0 {
		return true, nil
	}
	_, dropErr := c.drop(ctx, "")
	return false, errors.Join(err, dropErr)
}

func sleep(ctx context.Context, long time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(long):
		return nil
	}
}

// inUse says that another dispatcher has the aviary.
func (c *claim) inUse(by *volume.Volume) error {
	return fmt.Errorf("the aviary %s on this engine belongs to a running dispatcher with another data folder, %s: this one is a copy of it, or has its FOB_AVIARY; stop that dispatcher, or set FOB_AVIARY to a name of its own here",
		c.aviary, by.Labels[labelPlace])
}

// others returns the valid marks of other data folders, and removes those that are
// not valid any more.
func (c *claim) others(ctx context.Context) (valid []*volume.Volume, err error) {
	info, err := c.api.Info(ctx)
	if err != nil {
		return nil, err
	}
	now, err := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return nil, fmt.Errorf("the engine's clock says %q: %w", info.SystemTime, err)
	}
	all, err := c.marks(ctx)
	if err != nil {
		return nil, err
	}
	before := c.seen
	c.seen = map[string]time.Time{}
	for _, v := range all {
		if v.Labels[labelOwner] == c.owner {
			continue
		}
		first, known := before[v.Name]
		if !known {
			first = time.Now()
		}
		c.seen[v.Name] = first
		if c.isValid(v.CreatedAt, now, time.Since(first)) {
			valid = append(valid, v)
		} else if err := c.api.VolumeRemove(ctx, v.Name, true); err != nil { // in use, perhaps; it does not count
			c.log.Debug().Err(err).Msg("another folder's old mark cannot be removed")
		}
	}
	return valid, nil
}

// isValid reports whether a mark counts: by the engine's clock, and also where that
// went back since, or says nothing, no longer than it has been there before our eyes.
func (c *claim) isValid(created string, now time.Time, seen time.Duration) bool {
	made, err := time.Parse(time.RFC3339, created)
	return (err != nil || now.Sub(made) < c.time) && seen < c.time
}

// marks returns all marks of the aviary.
func (c *claim) marks(ctx context.Context) (marks []*volume.Volume, err error) {
	all, err := c.api.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelAviary+"="+c.aviary), filters.Arg("label", labelOwner))})
	return all.Volumes, err
}

// renew makes a new mark, and removes our older ones after that. It reports whether
// others have marks, valid or not.
func (c *claim) renew(ctx context.Context) (rivals bool, err error) {
	name := "fob-" + c.aviary + "-owner-" + strings.ToLower(crand.Text()[:8])
	if _, err := c.api.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: map[string]string{labelAviary: c.aviary, labelOwner: c.owner, labelPlace: c.place}}); err != nil {
		return false, err
	}
	return c.drop(ctx, name)
}

// drop removes our marks but for one, and reports whether others have some.
func (c *claim) drop(ctx context.Context, except string) (rivals bool, err error) {
	all, err := c.marks(ctx)
	for _, v := range all {
		if v.Labels[labelOwner] != c.owner {
			rivals = true
		} else if v.Name != except {
			err = errors.Join(err, c.api.VolumeRemove(ctx, v.Name, true))
		}
	}
	return rivals, err
}

// keep renews the mark until ctx ends. What fails is tried again: that the engine is
// away is others' to tell.
func (c *claim) keep(ctx context.Context) {
	tick := time.NewTicker(c.renewal)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rivals, err := c.renew(ctx)
		var others []*volume.Volume
		if err == nil && rivals {
			others, err = c.others(ctx)
		}
		if err != nil {
			c.log.Debug().Err(err).Msg("the aviary's mark cannot be renewed")
			continue
		}
		if len(others) > 0 && !c.lost {
			c.log.Error().Err(c.inUse(others[0])).Msg("another dispatcher uses the same aviary: the two remove one another's sandboxes")
		}
		c.lost = len(others) > 0
	}
}

// release removes the mark of a dispatcher that ends.
func (c *claim) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpTime)
	defer cancel()
	_, err := c.drop(ctx, "")
	return err
}
