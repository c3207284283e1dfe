package dispatch

import (
	"slices"
	"strings"

	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// defaults are the settings of a function that says nothing.
func (d *Dispatcher) defaults() faas.Settings {
	s := faas.DefaultSettings()
	s.Network = d.cfg.Network.String()
	return s
}

// permit fails with that code for settings that ask for more than the operator
// allows.
func (d *Dispatcher) permit(s faas.Settings, code faas.Code) error {
	network, err := faas.ParseNetwork(s.Network)
	if err != nil { // as only another dispatcher could have stored it
		return faas.Errorf(code, "network=%.80s: %v; give it another one", s.Network, err)
	}
	if !d.cfg.MaxNetwork.Covers(network) {
		return faas.Errorf(code, "network=%.80s is more than the operator allows, which is network=%.500v (FOB_MAX_NETWORK): give the function no more than that", s.Network, d.cfg.MaxNetwork)
	}
	if runtime := d.runtimeOf(s); runtime != d.cfg.Runtime && !slices.Contains(d.cfg.Runtimes, runtime) {
		offered := "there is no other than the default"
		if len(d.cfg.Runtimes) > 0 {
			offered = "there are " + strings.Join(d.cfg.Runtimes, ", ")
		}
		return faas.Errorf(code, "runtime=%s is not one that the operator offers (FOB_RUNTIMES): %s", runtime, offered)
	}
	return nil
}

// runtimeOf is the OCI runtime of a version's sandboxes.
func (d *Dispatcher) runtimeOf(s faas.Settings) string {
	if s.Runtime == "" {
		return d.cfg.Runtime
	}
	return s.Runtime
}

// networkOf is the network of a version, which permit has seen.
func networkOf(v *faas.Version) faas.Network {
	network, err := faas.ParseNetwork(v.Settings.Network)
	if err != nil {
		return faas.Network{} // none
	}
	return network
}

// openGate opens a bird's way out, if its version has a list of hosts. It is
// there before the code is, and until the sandbox goes.
func (b *bird) openGate(d *Dispatcher, v *faas.Version) error {
	network := networkOf(v)
	if !network.Listed() {
		return nil
	}
	listener, err := b.inst.Listen(sandbox.ProxyName)
	if err != nil {
		return engineError(err)
	}
	count := func(outcome egress.Outcome) {
		d.cfg.Metrics.Version(v.FunctionID, v.Number).Egress(string(outcome))
	}
	log := d.log.With().Str("sandbox", b.inst.ID()).Str("function", v.FunctionID).Int("version", v.Number).Logger()
	b.gate = d.cfg.Egress.Open(listener, network, count, log)
	return nil
}
