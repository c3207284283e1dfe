package docker

import (
	"context"
	"maps"
)

// Check implements sandbox.Engine. It checks that the engine answers and that the
// folder for sockets is there. A sandbox whose own folder is gone cannot be reached any
// more, so it counts as dead.
func (e *Engine) Check(ctx context.Context) error {
	if _, err := e.api.Ping(ctx); err != nil {
		return fault("asking Docker at "+e.api.DaemonHost()+" whether it is there", err)
	}
	if err := e.ensureSockets(); err != nil {
		return err
	}
	e.mu.Lock()
	lost := maps.Clone(e.known)
	e.mu.Unlock()
	folders, err := e.sockets.list()
	if err != nil {
		return err
	}
	for _, id := range folders {
		delete(lost, id)
	}
	maps.DeleteFunc(lost, func(_ string, inst *instance) bool { return !inst.ready.Load() || inst.dead() })
	if len(lost) > 0 {
		e.log.Warn().Int("sandboxes", len(lost)).Str("folder", e.sockets.path).Msg("somebody removed the folders of sandboxes, which nobody can reach any more: they are replaced")
	}
	for _, inst := range lost {
		inst.died(codeUnknown)
	}
	return nil
}

// ensureSockets creates the folder for sockets if it is missing, or says what is wrong
// with it.
func (e *Engine) ensureSockets() error {
	made, err := e.sockets.ensure()
	if made {
		e.log.Warn().Str("folder", e.sockets.path).Msg("somebody removed the folder for sockets: it is made again")
	}
	return err
}
