package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// keeper returns the tokens, which there are also where no dispatcher runs.
func (a *API) keeper() (faas.Tokens, error) {
	if b := a.backend.Load(); b != nil {
		return b.Tokens, nil
	}
	_, err := a.open()
	return nil, err
}

// createToken answers POST /api/tokens: the only answer that ever has the secret.
func (a *API) createToken(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	keeper, err := a.keeper()
	if err != nil {
		return err
	}
	body, err := a.readBody(w, r)
	if err != nil {
		return err
	}
	draft, err := readToken(body)
	if err != nil {
		return err
	}
	entry.Name = draft.Name
	expires, err := parseExpiry(draft.Expires, time.Now())
	if err != nil {
		return err
	}
	token, secret, err := keeper.Create(r.Context(), draft.Name, draft.Grants, expires)
	if err != nil {
		return err
	}
	entry.ID = token.ID
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, http.StatusCreated, struct {
		*faas.Token
		Secret string `json:"token"`
	}{token, secret})
}

type tokenDraft struct {
	Name    string
	Grants  []faas.Grant
	Expires string
}

// readToken reads the JSON object that says what a token is to be.
func readToken(body []byte) (draft tokenDraft, err error) {
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
		if e, ok := errors.AsType[*faas.Error](err); ok { // of a grant
			return e
		} else if err != nil {
			return faas.Errorf(faas.CodeBadRequest, "the member %s cannot be read: %.300s; a token is made from %s", name, err, form)
		}
		return nil
	})
}

// parseExpiry reads when a token is to expire: a duration from now, or a time;
// nothing is never.
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

// listTokens answers GET /api/tokens.
func (a *API) listTokens(w http.ResponseWriter, r *http.Request, _ faas.Caller) error {
	keeper, err := a.keeper()
	if err != nil {
		return err
	}
	tokens, err := keeper.List(r.Context())
	if err != nil {
		return err
	}
	if tokens == nil {
		tokens = []*faas.Token{}
	}
	return answer(w, http.StatusOK, struct {
		Tokens []*faas.Token `json:"tokens"`
	}{tokens})
}

// revokeToken answers DELETE /api/tokens/ID.
func (a *API) revokeToken(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	keeper, err := a.keeper()
	if err != nil {
		return err
	}
	entry.ID = chi.URLParam(r, "id")
	if err := keeper.Revoke(r.Context(), entry.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
