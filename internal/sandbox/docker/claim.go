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
	// engine's events. claimTime is how long a claim is valid without renewal. A
	// dispatcher that finds a claim left by a crash waits as long.
	renewal   = 20 * time.Second
	claimTime = time.Minute

	labelOwner = "fob.owner"
	labelPlace = "fob.place"
)

// A claim marks an aviary at the engine as one data folder's. The mark is an empty
// volume whose labels name the folder, and which is replaced regularly.
//
// A copy of a data folder has the same aviary, so each of the two dispatchers would
// take the other's sandboxes for strays and remove them. Therefore a dispatcher that
// finds another folder's mark waits, and gives up if that mark is renewed. A dispatcher
// with the same folder, as a standby or after a crash, has the same mark and need not
// wait.
type claim struct {
	api    *client.Client
	log    zerolog.Logger
	aviary string
	owner  string // identity of the data folder
	place  string // its name for people

	renewal, time time.Duration

	seen map[string]time.Time // when others' marks were first seen, by our own clock
	lost bool                 // somebody else has a mark, and that was logged
}

// acquire makes the aviary ours. It fails if a dispatcher with another data folder uses
// it.
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

// await returns when no other data folder has a valid mark. It fails if such a mark is
// renewed.
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
				Msg("the aviary is marked as another data folder's: waiting to see whether that one is in use")
		}
		if err := sleep(ctx, c.renewal/10); err != nil {
			return err
		}
	}
	return err
}

// settle makes our mark. If somebody else has made one, too, it takes ours back and
// reports false. Of two dispatchers that do this at once, both may see the other's
// mark, but at least one does.
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

// others returns the valid marks of other data folders, and removes those that have
// expired.
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
		} else if err := c.api.VolumeRemove(ctx, v.Name, true); err != nil { // perhaps in use; it does not count
			c.log.Debug().Err(err).Msg("another folder's old mark cannot be removed")
		}
	}
	return valid, nil
}

// isValid reports whether a mark counts. It does until it is claimTime old by the
// engine's clock. In case that clock was set back, or the time cannot be read, it
// counts at most for claimTime after we first saw it.
func (c *claim) isValid(created string, now time.Time, seen time.Duration) bool {
	made, err := time.Parse(time.RFC3339, created)
	return (err != nil || now.Sub(made) < c.time) && seen < c.time
}

// marks returns all marks of the aviary.
func (c *claim) marks(ctx context.Context) (marks []*volume.Volume, err error) {
	all, err := c.api.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelAviary+"="+c.aviary), filters.Arg("label", labelOwner))})
	return all.Volumes, err
}

// renew makes a new mark, then removes our older ones. It reports whether others have
// marks, valid or not.
func (c *claim) renew(ctx context.Context) (rivals bool, err error) {
	name := "fob-" + c.aviary + "-owner-" + strings.ToLower(crand.Text()[:8])
	if _, err := c.api.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: map[string]string{labelAviary: c.aviary, labelOwner: c.owner, labelPlace: c.place}}); err != nil {
		return false, err
	}
	return c.drop(ctx, name)
}

// drop removes our marks except one, and reports whether others have marks.
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

// keep renews the mark until ctx ends. Failures are tried again, and logged only for
// debugging, because others report that the engine is away.
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

// release removes our mark, because the dispatcher ends.
func (c *claim) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpTime)
	defer cancel()
	_, err := c.drop(ctx, "")
	return err
}
