package contract

import (
	"net/http"
	"strings"
	"testing"
)

// What is no environment is refused before anything is loaded.
func TestMalformedEnvironment(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		client := boot(t, lang).Client(t)
		for _, more := range []string{
			`"env": []`, `"env": "A=1"`, `"env": {"A": 1}`, `"env": {"A": null}`,
			`"secrets": ["A"]`, `"secrets": {"A": 1}`, `"secrets": {"A": "not base64"}`, `"secrets": {"A": "QQ"}`, `"secrets": {"A": "QQ==QQ=="}`,
		} {
			status, header, body := client.Do(t, newRequest(t, http.MethodPut, "/_fob/function", `{"code": "x", `+more+`}`))
			if status != 400 || header.Get("Fob-Error") != "bad_request" {
				t.Errorf("%s: %d %s", more, status, body)
			}
		}
		if h := client.health(t); h.State != "blank" {
			t.Errorf("%+v, want blank", h)
		}
		nothing := map[string]any{"code": echoes[lang], "env": nil, "secrets": map[string][]byte{"EMPTY": {}}}
		if status, _, body := client.load(t, nothing); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	})
}

// Secrets that cannot be written are not left out.
func TestNoFolderForSecrets(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		for folder, want := range map[string]struct {
			status int
			code   string
		}{"": {400, "bad_request"}, "/nowhere": {422, "load_failed"}} {
			client := boot(t, lang, "FOB_SECRETS="+folder).Client(t)
			status, header, body := client.load(t, map[string]any{"code": echoes[lang], "secrets": map[string][]byte{"KEY": []byte("swordfish")}})
			if status != want.status || header.Get("Fob-Error") != want.code || strings.Contains(string(body), "swordfish") {
				t.Errorf("FOB_SECRETS=%s: %d %s", folder, status, body)
			}
			if status, _, _ := client.Do(t, newRequest(t, http.MethodPost, "/", "")); status != 409 {
				t.Errorf("FOB_SECRETS=%s: a call answered %d, want 409", folder, status)
			}
		}
	})
}
