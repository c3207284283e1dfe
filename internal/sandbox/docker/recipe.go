package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// recipe is a digest of all that makes a sandbox what it is, but for what each has of
// its own and what can be changed while it lives: two with the same one differ in
// nothing that a function, or who confines it, could care about.
func (e *Engine) recipe(image string, spec sandbox.Spec) (string, error) {
	spec.Limits = sandbox.Limits{}
	blank := e.newInstance("", "", spec, time.Time{})
	config, host := e.containerConfig(blank, image), e.hostConfig(blank, spec.Network)
	config.Labels = nil
	for i := range host.Mounts { // which may have moved
		host.Mounts[i].Source = ""
	}
	text, err := json.Marshal([]any{config, host})
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:8]), nil
}

// Outdated implements sandbox.Instance.
func (i *instance) Outdated(ctx context.Context) (bool, error) {
	spec := i.Spec()
	image, err := i.e.image(ctx, spec.Lang)
	if err != nil {
		return false, err
	}
	today, err := i.e.recipe(image, spec)
	if err != nil || i.recipe != today || spec.Network == networkNone {
		return i.recipe != today, err
	}
	network, err := i.e.ensureNetwork(ctx)
	return i.network != network, err
}
