package httpapi

import (
	"io"
	"net/http"
	"strconv"

	"github.com/flockofbirds/fob/internal/faas"
)

// code answers GET /api/cs/REF with the code fragment exactly as it was registered.
func (s *functions) code(w http.ResponseWriter, r *http.Request, q asked) error {
	_, version, err := s.registry.Resolve(r.Context(), q.ref)
	if q.who.Kind == faas.CallerSandbox && (err != nil || version.Key() != q.who.Holds) {
		return s.unauthorized(r, faas.ScopeRead)
	}
	if err != nil {
		return err
	}
	code, err := s.registry.Code(r.Context(), version)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(code)))
	inert(w.Header()) // it is a stranger's text
	w.Header().Set("Fob-Version", strconv.Itoa(version.Number))
	io.WriteString(w, code)
	return nil
}
