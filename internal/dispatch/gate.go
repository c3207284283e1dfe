package dispatch

import (
	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// openGate opens a bird's way out if its version has a list of hosts. It is opened
// before the code is loaded, and stays until the sandbox is removed.
func (b *bird) openGate(h *hatchery, v *faas.Version) error {
	network := networkOf(v)
	if !network.Listed() {
		return nil
	}
	listener, err := b.inst.Listen(sandbox.ProxyName)
	if err != nil {
		return engineError(err)
	}
	count := func(outcome egress.Outcome) {
		h.cfg.Metrics.Function(v.FunctionID).Egress(string(outcome))
	}
	log := h.log.With().Str("sandbox", b.inst.ID()).Str("function", v.FunctionID).Int("version", v.Number).Logger()
	b.gate = h.cfg.Egress.Open(listener, network, count, log)
	return nil
}

// networkOf returns the network of a version. The catalogue has permitted it.
func networkOf(v *faas.Version) faas.Network {
	network, err := faas.ParseNetwork(v.Settings.Network)
	if err != nil {
		return faas.Network{} // no network
	}
	return network
}
