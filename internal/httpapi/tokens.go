package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// tokens answers everything about tokens, even if no dispatcher runs.
type tokens struct {
	tokens faas.Tokens
	bodies *bodies
}

// create answers POST /api/tokens. Only this answer ever has the secret.
func (s *tokens) create(w http.ResponseWriter, r *http.Request, q asked) error {
	body, err := s.bodies.read(w, r)
	if err != nil {
		return err
	}
	draft, err := readToken(body)
	if err != nil {
		return err
	}
	q.entry.Name = draft.Name
	expires, err := parseExpiry(draft.Expires, time.Now())
	if err != nil {
		return err
	}
	token, secret, err := s.tokens.Create(r.Context(), draft.Name, draft.Grants, expires)
	if err != nil {
		return err
	}
	q.entry.ID = token.ID
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, http.StatusCreated, api.MadeToken{Token: token, Secret: secret})
}

// readToken reads the JSON object that describes a new token.
func readToken(body []byte) (draft api.NewToken, err error) {
	members := map[string]any{"name": &draft.Name, "grants": &draft.Grants, "expires": &draft.Expires}
	const form = `{"name": "ann", "grants": ["read", "invoke:hello"], "expires": "720h"}`
	return draft, eachMember(body, func(name string) error {
		if members[name] == nil {
			return faas.Errorf(faas.CodeBadRequest, "a token has no member %.80q; it is made from %s", name, form)
		}
		return nil
	}, func(name string, raw json.RawMessage) error {
		if len(raw) > maxSetting {
			return faas.Errorf(faas.CodeBadRequest, "the member %s has %d bytes, more than any that is allowed", name, len(raw))
		}
		err := json.Unmarshal(raw, members[name])
		if e, ok := errors.AsType[*faas.Error](err); ok { // from parsing a grant
			return e
		} else if err != nil {
			return faas.Errorf(faas.CodeBadRequest, "the member %s cannot be read: %.300s; a token is made from %s", name, err, form)
		}
		return nil
	})
}

// parseExpiry reads when a token expires: a duration from now, or a time. Empty text
// means never.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d).UTC().Truncate(time.Millisecond), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, faas.Errorf(faas.CodeBadRequest, "expires=%.80q is neither a duration such as 720h nor a time such as 2030-01-02T15:04:05Z", text)
	}
	return at.UTC(), nil
}

// list answers GET /api/tokens.
func (s *tokens) list(w http.ResponseWriter, r *http.Request, _ asked) error {
	all, err := s.tokens.List(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, api.Tokens{Tokens: append([]*faas.Token{}, all...)})
}

// revoke answers DELETE /api/tokens/ID.
func (s *tokens) revoke(w http.ResponseWriter, r *http.Request, _ asked) error {
	if err := s.tokens.Revoke(r.Context(), chi.URLParam(r, "id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
