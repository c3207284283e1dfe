package httpapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// target is what a request to a route with a ref is about.
func (a *API) target(r *http.Request) (*Backend, faas.Ref, error) {
	backend, err := a.open()
	if err != nil {
		return nil, faas.Ref{}, err
	}
	ref, err := refOf(r)
	return backend, ref, err
}

// refOf reads the ref in a request's path.
func refOf(r *http.Request) (faas.Ref, error) {
	text, plain := strings.CutPrefix(r.URL.Path, CallPrefix)
	if !plain || r.URL.RawPath != "" {
		text = chi.URLParam(r, "ref")
	}
	if r.URL.RawPath != "" {
		// chi then routes by the path as it was sent, and leaves the parameter
		// escaped.
		var err error
		if text, err = url.PathUnescape(text); err != nil {
			return faas.Ref{}, faas.Errorf(faas.CodeBadRequest, "the path is not properly percent-encoded")
		}
	}
	return faas.ParseRef(text)
}

// resolve finds the version that the route's ref names.
func (a *API) resolve(r *http.Request) (*Backend, *faas.Version, error) {
	backend, ref, err := a.target(r)
	if err != nil {
		return nil, nil, err
	}
	_, version, err := backend.Registry.Resolve(r.Context(), ref)
	return backend, version, err
}
