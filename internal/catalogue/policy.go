package catalogue

import (
	"slices"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// Policy is what the operator permits, and which settings functions have by default.
type Policy struct {
	Langs      []string     // languages that there are drivers for
	Network    faas.Network // of functions that set none
	MaxNetwork faas.Network // the most that a function may have
	Runtime    string       // OCI runtime of functions that set none; empty for the engine's own
	Runtimes   []string     // other runtimes that functions may have
	MaxMemory  faas.Bytes   // that all sandboxes together may use
}

// defaults returns the settings of a function that sets none.
func (p Policy) defaults() faas.Settings {
	s := faas.DefaultSettings()
	s.Network = p.Network.String()
	return s
}

// settings returns base with a patch applied. It fails if a new version in that
// language may not have these settings.
func (p Policy) settings(lang string, patch faas.SettingsPatch, base faas.Settings) (faas.Settings, error) {
	settings, err := patch.Apply(base)
	if err == nil {
		err = faas.CheckEnvironment(lang, settings)
	}
	if err == nil {
		err = p.permit(settings, faas.CodeBadRequest)
	}
	if err == nil && settings.Memory > p.MaxMemory {
		err = faas.TooMuchMemory(faas.CodeBadRequest, settings.Memory, p.MaxMemory)
	}
	return settings, err
}

// permit fails with that code if settings ask for more than the operator allows.
func (p Policy) permit(s faas.Settings, code faas.Code) error {
	network, err := faas.ParseNetwork(s.Network)
	if err != nil { // only another dispatcher can have stored it
		return faas.Errorf(code, "network=%.80s: %v; give it another one", s.Network, err)
	}
	if !p.MaxNetwork.Covers(network) {
		return faas.Errorf(code, "network=%.80s is more than the operator allows, which is network=%.500v (FOB_MAX_NETWORK): give the function no more than that", s.Network, p.MaxNetwork)
	}
	if s.Runtime != "" && s.Runtime != p.Runtime && !slices.Contains(p.Runtimes, s.Runtime) {
		offered := "there is no other than the default"
		if len(p.Runtimes) > 0 {
			offered = "there are " + strings.Join(p.Runtimes, ", ")
		}
		return faas.Errorf(code, "runtime=%s is not one that the operator offers (FOB_RUNTIMES): %s", s.Runtime, offered)
	}
	return nil
}
