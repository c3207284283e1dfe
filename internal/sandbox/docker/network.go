package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockernet "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"
)

// The networks that a Spec can ask for. They are the same words as in faas.
const (
	networkEgress = "egress"
	networkNone   = "none"
)

// iccOption is the bridge driver's option for traffic between containers.
const iccOption = "com.docker.network.bridge.enable_icc"

// bridgeOption is the bridge driver's option for the name of the interface.
const bridgeOption = "com.docker.network.bridge.name"

// bridgeName returns a name that firewall rules can know beforehand: all begin with
// fob-. An interface's name has at most 15 bytes.
func bridgeName(aviary string) string {
	digest := sha256.Sum256([]byte(aviary))
	return "fob-" + hex.EncodeToString(digest[:5])
}

// network is the aviary's bridge. Sandboxes on it reach the world, but not one another.
type network struct {
	api    *client.Client
	log    zerolog.Logger
	aviary string
	name   string
	turn   *semaphore.Weighted // a lock; ctx can end the wait for it

	// id is the engine's ID of the network that was found in order, or made; empty
	// until then. turn guards it. Sandboxes join by ID, because somebody else may give
	// the name to another network.
	id string
}

func newNetwork(api *client.Client, log zerolog.Logger, aviary string) *network {
	return &network{api: api, log: log, aviary: aviary, name: "fob-" + aviary + "-egress", turn: semaphore.NewWeighted(1)}
}

// mode returns a container's network mode for the network that a Spec wants.
func (n *network) mode(ctx context.Context, wanted string) (string, error) {
	switch wanted {
	case networkNone:
		return "none", nil
	case networkEgress:
		return n.ensure(ctx)
	}
	return "", fmt.Errorf("there is no network %q: use %s or %s", wanted, networkEgress, networkNone)
}

// ensure returns the ID of the egress network. It makes the network if it is missing.
func (n *network) ensure(ctx context.Context) (id string, err error) {
	if err := n.turn.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer n.turn.Release(1)
	if n.id != "" {
		return n.id, nil
	}
	// The engine may just be making the network for somebody else, for example for a
	// dispatcher that was killed while it asked. It refuses a second network with the
	// same bridge, and shows the first one a moment later.
	for tries := 0; ; tries++ {
		n.id, err = n.find(ctx)
		if err != nil || n.id != "" {
			return n.id, err
		}
		made, err := n.api.NetworkCreate(ctx, n.name, dockernet.CreateOptions{
			Driver:  "bridge",
			Options: map[string]string{iccOption: "false", bridgeOption: bridgeName(n.aviary)},
			Labels:  map[string]string{labelAviary: n.aviary},
		})
		if err == nil {
			n.id = made.ID
			return n.id, nil
		}
		if taken := errdefs.IsConflict(err) || strings.Contains(err.Error(), "conflicts with network"); !taken || tries == 40 {
			return "", poolHint(fault("making the sandboxes' network", err))
		}
		select {
		case <-ctx.Done():
			return "", fault("making the sandboxes' network", errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// find returns the ID of the network, or "" if there is none. It fails if the network
// is not as it should be.
func (n *network) find(ctx context.Context) (id string, err error) {
	name := n.name
	found, err := n.api.NetworkInspect(ctx, name, dockernet.InspectOptions{})
	switch {
	case errdefs.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fault("looking for the sandboxes' network", err)
	case found.Labels[labelAviary] != n.aviary:
		return "", fmt.Errorf("there is a Docker network %s that is not this dispatcher's: remove it, or set FOB_AVIARY to another name", name)
	case found.Options[iccOption] != "false":
		return "", fmt.Errorf("the Docker network %s lets sandboxes reach one another: remove it, and it will be made again", name)
	}
	return found.ID, nil
}

// lost reports whether err says that a container could not be started because the
// network is gone. If so, it forgets the network.
func (n *network) lost(ctx context.Context, err error) bool {
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "network") {
		return false
	}
	if n.turn.Acquire(ctx, 1) != nil {
		return false
	}
	defer n.turn.Release(1)
	if n.id != "" {
		n.log.Warn().Str("network", n.name).Msg("somebody removed the sandboxes' network: it is looked for again, and made if need be")
		n.id = ""
	}
	return true
}

// poolHint adds to an error about used-up address pools what to do. The texts are those
// of engines from 20.10 to 28.
func poolHint(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "non-overlapping IPv4 address pool") || strings.Contains(text, "fully subnetted"):
		return fmt.Errorf("%w; Docker has no address range left for another network: remove unused ones (docker network prune), or widen default-address-pools in /etc/docker/daemon.json", err)
	case strings.Contains(text, "no available IPv4 addresses"):
		return fmt.Errorf("%w; the sandboxes' network is full: lower max_scale, or widen default-address-pools in /etc/docker/daemon.json", err)
	}
	return err
}

// purge removes the aviary's networks.
func (n *network) purge(ctx context.Context) error {
	if err := n.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer n.turn.Release(1)
	n.id = ""
	networks, err := n.api.NetworkList(ctx, dockernet.ListOptions{Filters: ours(n.aviary)})
	if err != nil {
		return fault("listing networks to purge", err)
	}
	for _, found := range networks {
		if err := n.remove(ctx, found.ID); err != nil {
			return err
		}
	}
	return nil
}

// remove removes one network. A container's endpoint may outlive the container for a
// moment, so it tries several times.
func (n *network) remove(ctx context.Context, id string) error {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for tries := 0; ; tries++ {
		err := n.api.NetworkRemove(ctx, id)
		if err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if tries == 40 || !strings.Contains(err.Error(), "active endpoints") {
			return fault("removing the sandboxes' network", err)
		}
		select {
		case <-ctx.Done():
			return fault("removing the sandboxes' network", errors.Join(err, ctx.Err()))
		case <-poll.C:
		}
	}
}
