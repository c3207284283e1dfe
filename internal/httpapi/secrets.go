package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// secrets answers everything about secrets.
type secrets struct {
	secrets faas.SecretRegistry
	bodies  *bodies
}

// put answers PUT /api/secrets/NAME. The body is the value, byte for byte. It goes only
// to the keeper, and is then overwritten.
func (s *secrets) put(w http.ResponseWriter, r *http.Request, q asked) error {
	name := chi.URLParam(r, "name")
	if err := faas.CheckVariable(name); err != nil {
		return err
	}
	value, err := s.bodies.readAll(w, r, faas.MaxSecretSize, faas.Errorf(faas.CodeTooLarge, "the value is larger than the %v that a secret may have", faas.Bytes(faas.MaxSecretSize)))
	defer clear(value)
	if err != nil {
		return err
	}
	secret, created, err := s.secrets.PutSecret(r.Context(), name, value, secretFunctions(q.query))
	if err != nil {
		return err
	}
	q.entry.Version = secret.Version
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return answer(w, status, secret)
}

// secretFunctions reads ?functions=A,B. It returns nil if the parameter is not given.
func secretFunctions(values map[string]string) []string {
	list, given := values["functions"]
	switch {
	case !given:
		return nil
	case list == "":
		return []string{}
	}
	return strings.Split(list, ",")
}

// list answers GET /api/secrets with everything except the values.
func (s *secrets) list(w http.ResponseWriter, r *http.Request, _ asked) error {
	all, err := s.secrets.ListSecrets(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, api.Secrets{Secrets: append([]faas.UsedSecret{}, all...)})
}

// delete answers DELETE /api/secrets/NAME.
func (s *secrets) delete(w http.ResponseWriter, r *http.Request, _ asked) error {
	name := chi.URLParam(r, "name")
	if err := faas.CheckVariable(name); err != nil {
		return err
	}
	if err := s.secrets.DeleteSecret(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// rotateKey answers POST /api/secrets/rotate-key.
func (s *secrets) rotateKey(w http.ResponseWriter, r *http.Request, q asked) error {
	made, err := s.secrets.RotateKey(r.Context())
	if err != nil {
		return err
	}
	q.entry.ID = made.Key
	return answer(w, http.StatusOK, made)
}
