package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/client"
)

// ledger is what was acknowledged about a secret and about tokens. One client changes
// each, so at most one change is open.
type ledger struct {
	mu sync.Mutex

	value  int             // how often the secret was set since it was created; 0 if it does not exist
	next   int             // the value if the last change was done
	tokens map[string]bool // IDs of existing tokens
	made   string          // name of the token that is being made
	gone   string          // ID of the token that is being revoked
}

const secretPath = "/api/secrets/LEDGER"

// changeSecret sets and deletes a secret until the round is over.
func (k *killing) changeSecret(random *rand.Rand, over chan struct{}) {
	l := &k.ledger
	for k.wait(random, over) {
		l.mu.Lock()
		method, body := "PUT", fmt.Sprint("value ", l.value)
		if l.next = l.value + 1; l.value > 0 && random.IntN(4) == 0 {
			method, body, l.next = "DELETE", "", 0
		}
		next := l.next
		l.mu.Unlock()
		a, err := k.d.Do(method, secretPath, body)
		k.history.note("secret", "method", method, "next", next, "status", a.Status, "error", err)
		if !k.heard(method+" of a secret", a, err) {
			return
		}
		l.mu.Lock()
		if l.next = l.value; a.Status/100 == 2 {
			l.value, l.next = next, next
		}
		l.mu.Unlock()
	}
}

// changeTokens makes and revokes tokens until the round is over.
func (k *killing) changeTokens(random *rand.Rand, over chan struct{}) {
	l := &k.ledger
	for n := 0; k.wait(random, over); n++ {
		l.mu.Lock()
		l.made, l.gone = fmt.Sprintf("t%d-%d", random.Uint32(), n), ""
		method, path, body := "POST", "/api/tokens", fmt.Sprintf(`{"name": %q, "grants": ["invoke:f0"]}`, l.made)
		if random.IntN(10) < 2*len(l.tokens) {
			for id := range l.tokens {
				l.gone = id
			}
			l.made = ""
			method, path, body = "DELETE", "/api/tokens/"+l.gone, ""
		}
		l.mu.Unlock()
		a, err := k.d.Do(method, path, body)
		k.history.note("token", "method", method, "path", path, "status", a.Status, "error", err)
		if !k.heard(method+" of a token", a, err) {
			return
		}
		var token struct{ ID string }
		json.Unmarshal([]byte(a.Body), &token)
		l.mu.Lock()
		switch {
		case a.Status == 201:
			l.tokens[token.ID] = true
		case a.Status == 204:
			delete(l.tokens, l.gone)
		}
		l.made, l.gone = "", ""
		l.mu.Unlock()
	}
}

// wait pauses between changes. It returns false when the round is over.
func (k *killing) wait(random *rand.Rand, over chan struct{}) bool {
	select {
	case <-over:
		return false
	case <-time.After(time.Duration(random.IntN(60)) * time.Millisecond):
		return true
	}
}

// heard counts the answer to a change. It returns false if there is none.
func (k *killing) heard(what string, a client.Answer, err error) bool {
	switch {
	case err != nil:
		k.unheard.Add(1)
		if !k.d.dying.Load() {
			k.violate("%s: %v, and the dispatcher lives", what, err)
		}
		return false
	case a.Status/100 == 2:
		k.acked.Add(1)
	case a.Status != 500 || !k.failing.Load():
		k.violate("%s: %d %s", what, a.Status, a.Body)
	}
	return true
}

// checkLedger compares the secret and the tokens with what was acknowledged.
func (k *killing) checkLedger() {
	l := &k.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	var secrets api.Secrets
	var tokens api.Tokens
	for path, into := range map[string]any{"/api/secrets": &secrets, "/api/tokens": &tokens} {
		if err := k.d.Read(path, into); err != nil {
			if !k.d.Over() {
				k.violate("%s: %v", path, err)
			}
			return
		}
	}
	value := 0
	for _, s := range secrets.Secrets {
		if strings.HasSuffix(secretPath, s.Name) {
			value = s.Version
		}
	}
	if value != l.value && value != l.next {
		k.lost.Add(1)
		k.violate("the secret has version %d; %d was acknowledged, and %d is what may be", value, l.value, l.next)
	}
	l.value, l.next = value, value
	there := map[string]bool{}
	for _, token := range tokens.Tokens {
		switch {
		case token.Name == "root":
		case l.tokens[token.ID] || token.Name == l.made && l.made != "":
			there[token.ID] = true
		default:
			k.violate("there is a token %s (%s) that nobody made, or that was revoked", token.Name, token.ID)
		}
	}
	for id := range l.tokens {
		if !there[id] && id != l.gone {
			k.lost.Add(1)
			k.violate("token %s was acknowledged, and is not there", id)
		}
	}
	l.tokens, l.made, l.gone = there, "", ""
}
