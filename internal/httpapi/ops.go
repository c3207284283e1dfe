package httpapi

import "net/http"

type status struct {
	Status string `json:"status"`
}

// healthz answers GET /healthz: the process lives.
func (a *API) healthz(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, status{"ok"})
}

// readyz answers GET /readyz: it serves, or says why it does not.
func (a *API) readyz(w http.ResponseWriter, _ *http.Request) error {
	if why := a.unready.Load(); why != nil {
		return why
	}
	b := a.backend.Load()
	if b != nil && b.Storage != nil {
		if err := b.Storage.Broken(); err != nil {
			return err
		}
	}
	if b != nil && b.Engine != nil {
		if why := b.Engine.Outage(); why != nil {
			return why
		}
	}
	return answer(w, http.StatusOK, status{"ready"})
}

// version answers GET /api/version.
func (a *API) version(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, a.cfg.Build)
}
