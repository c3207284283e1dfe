package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// putSecret answers PUT /api/secrets/NAME. The body is the value, byte for byte.
// It goes nowhere but into the keeper, and is overwritten then.
func (a *API) putSecret(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	name := chi.URLParam(r, "name")
	entry.Name = name
	if err := faas.CheckVariable(name); err != nil {
		return err
	}
	functions, err := secretFunctions(r.URL.RawQuery)
	if err != nil {
		return err
	}
	value, err := a.readAll(w, r, faas.MaxSecretSize, faas.Errorf(faas.CodeTooLarge, "the value is larger than the %v that a secret may have", faas.Bytes(faas.MaxSecretSize)))
	defer clear(value)
	if err != nil {
		return err
	}
	secret, created, err := backend.Secrets.PutSecret(r.Context(), name, value, functions)
	if err != nil {
		return err
	}
	entry.Version = secret.Version
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return answer(w, status, secret)
}

// secretFunctions reads ?functions=A,B; nil when nothing is said.
func secretFunctions(query string) ([]string, error) {
	values, err := readParameters(query, "functions")
	if err != nil {
		return nil, err
	}
	list, given := values["functions"]
	switch {
	case !given:
		return nil, nil
	case list == "":
		return []string{}, nil
	}
	return strings.Split(list, ","), nil
}

// listSecrets answers GET /api/secrets: all but the values.
func (a *API) listSecrets(w http.ResponseWriter, r *http.Request, _ faas.Caller) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	all, err := backend.Secrets.ListSecrets(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, struct {
		Secrets []faas.UsedSecret `json:"secrets"`
	}{append([]faas.UsedSecret{}, all...)})
}

// deleteSecret answers DELETE /api/secrets/NAME.
func (a *API) deleteSecret(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	name := chi.URLParam(r, "name")
	entry.Name = name
	if err := faas.CheckVariable(name); err != nil {
		return err
	}
	if err := backend.Secrets.DeleteSecret(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// rotateKey answers POST /api/secrets/rotate-key.
func (a *API) rotateKey(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	made, err := backend.Secrets.RotateKey(r.Context())
	if err != nil {
		return err
	}
	entry.ID = made.Key
	return answer(w, http.StatusOK, made)
}
