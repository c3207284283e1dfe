package contract

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// formEchoes say what a form has in it.
var formEchoes = map[string]string{
	"python": `
import base64
def callme(request):
    files = {n: [[f.filename, base64.b64encode(f.body).decode()] for f in fs] for n, fs in request.files_all.items()}
    return [request.form_all, files]`,
	"node": `
module.exports = (request) => {
    const files = Object.entries(request.filesAll).map(([n, fs]) => [n, fs.map((f) => [f.filename, f.body.toString('base64')])]);
    return [request.formAll, Object.fromEntries(files)];
};`,
}

// Forms of another's making, of what could be taken for the form itself, come out
// as they went in.
func TestForms(t *testing.T) {
	const seed = 7
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, formEchoes[lang])
		random := rand.New(rand.NewPCG(seed, seed))
		pieces := []string{"a", "\r\n", "--", "\r\n--", "B", "x", " ", "é", "\"", "\\", ";", "=", "%", "&", "+", "\x00", "\r", "\n", "%41", "name", ":"}
		some := func(most int, extra ...string) string {
			var b strings.Builder
			for range random.IntN(most + 1) {
				b.WriteString(slices.Concat(pieces, extra)[random.IntN(len(pieces)+len(extra))])
			}
			return b.String()
		}
		for n := range 60 {
			fields, files := map[string][]string{}, map[string][][2]string{}
			values := url.Values{}
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			if err := w.SetBoundary([]string{"B", "--B", "a b'c"}[n%3]); err != nil {
				t.Fatal(err)
			}
			delimiter := "\r\n--" + w.Boundary()
			for range random.IntN(6) {
				name := "n" + strings.Trim(some(3), "\r\n\x00")
				if strings.ContainsAny(name, "\\%\r\n\"") {
					name = "plain" // for which every writer has an escape of its own
				}
				content := some(20, "\xff", "\xc3")
				for strings.Contains("\r\n"+content+"\r\n", delimiter) {
					content = strings.ReplaceAll(content, "--", "-")
				}
				if random.IntN(2) == 0 {
					part, err := w.CreateFormFile(name, "file")
					if err != nil {
						t.Fatal(err)
					}
					_, _ = part.Write([]byte(content))
					files[name] = append(files[name], [2]string{"file", base64.StdEncoding.EncodeToString([]byte(content))})
					continue
				}
				content = strings.TrimPrefix(strings.ToValidUTF8(content, "?"), "\ufeff")
				if err := w.WriteField(name, content); err != nil {
					t.Fatal(err)
				}
				fields[name] = append(fields[name], content)
				values.Add(name, content)
			}
			_ = w.Close()
			ask := func(kind, body string, fields, files any) {
				t.Helper()
				request := newRequest(t, http.MethodPost, "/", body)
				request.Header.Set("Content-Type", kind)
				status, _, answer := client.Do(t, request)
				want, err := json.Marshal(map[string]any{"result": []any{fields, files}})
				if err != nil {
					t.Fatal(err)
				}
				if status != 200 || !sameJSON(answer, want) {
					t.Errorf("%s %q\nanswered %d %s, want %s", kind, body, status, show(answer), want)
				}
			}
			ask(w.FormDataContentType(), body.String(), fields, files)
			ask("application/x-www-form-urlencoded", values.Encode(), fields, map[string]any{})
		}
	})
}

// A form of millions of escapes takes time, and no memory to match: a sandbox has
// little.
func TestFormOfEscapes(t *testing.T) {
	const escapes, most = 2_000_000 - 1, 128 << 10 // KB, blank driver included
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, map[string]string{
			"python": "import re\ndef callme(a): return [len(a), int(re.search('VmHWM:\\\\s*(\\\\d+)', open('/proc/self/status').read())[1])]",
			"node":   "module.exports = (a) => [a.length, +/VmHWM:\\s*(\\d+)/.exec(require('fs').readFileSync('/proc/self/status'))[1]];",
		}[lang])
		for what, c := range map[string]struct{ kind, body string }{
			"urlencoded":   {"application/x-www-form-urlencoded", "a=" + strings.Repeat("%41", escapes)},
			"windows-1252": {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=windows-1252\r\n\r\n" + strings.Repeat("\x80", escapes) + "\r\n--B--"},
		} {
			request := newRequest(t, http.MethodPost, "/", c.body)
			request.Header.Set("Fob-Content-Type", c.kind)
			status, _, body := client.Do(t, request)
			var answer struct{ Result []int }
			if err := json.Unmarshal(body, &answer); err != nil || status != 200 || len(answer.Result) != 2 || answer.Result[0] != escapes {
				t.Fatalf("%s: answered %d %s", what, status, show(body))
			}
			if answer.Result[1] > most {
				t.Errorf("%s: %s", what, fmt.Sprintf("%d KB were used, and a sandbox has %d", answer.Result[1], most))
			}
		}
	})
}
