package httpapi

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/web"
)

// webpage answers what a browser needs to show the page.
type webpage struct {
	files map[string]webFile // by name
}

// webFile is a file of the page, also compressed.
type webFile struct {
	media, etag  string
	plain, small []byte
}

func newWebpage() *webpage {
	return &webpage{files: map[string]webFile{
		"page.js":    newWebFile("text/javascript; charset=utf-8", web.Script),
		"page.css":   newWebFile("text/css; charset=utf-8", web.Style),
		"icon.svg":   newWebFile("image/svg+xml", web.Icon),
		"about.json": newWebFile("application/json", encode(declarations())),
	}}
}

func newWebFile(media string, content []byte) webFile {
	var small bytes.Buffer
	z, _ := gzip.NewWriterLevel(&small, gzip.BestCompression) // the level is a valid one
	z.Write(content)                                          // writing to memory cannot fail
	z.Close()
	sum := sha256.Sum256(content)
	return webFile{media: media, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, plain: content, small: small.Bytes()}
}

// declarations is what the page knows of settings and errors, from their declarations. It is of
// the page alone, and no part of the API.
func declarations() any {
	type setting struct {
		Name     string `json:"name"`
		Everyday bool   `json:"everyday"`
		Doc      string `json:"doc"`
		More     string `json:"more"`
		Default  string `json:"default"`
		Range    string `json:"range"`
		Example  string `json:"example"`
	}
	type failure struct {
		Code   faas.Code  `json:"code"`
		Fault  faas.Fault `json:"fault"`
		Title  string     `json:"title"`
		When   string     `json:"when"`
		Remedy string     `json:"remedy"`
	}
	var all struct {
		Settings []setting `json:"settings"`
		Errors   []failure `json:"errors"`
	}
	for _, s := range faas.SettingTable {
		all.Settings = append(all.Settings, setting{s.Name, s.Everyday, s.Doc, s.More, s.Default, s.Range, s.Example})
	}
	for _, c := range faas.CodeTable {
		all.Errors = append(all.Errors, failure{c.Code, c.Fault, c.Title, c.When, c.Remedy})
	}
	return all
}

// pagePolicy is the page's content security policy, with its nonce left out. Functions
// answer from the same origin, so only what has the nonce may be a script or a style,
// and no text can become markup.
const pagePolicy = "default-src 'none'; script-src 'nonce-{{nonce}}'; style-src 'nonce-{{nonce}}'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// index answers GET / with the page if the client wants HTML. To others there is nothing
// here, as on any unknown path.
func (s *webpage) index(w http.ResponseWriter, r *http.Request, _ asked) error {
	h := w.Header()
	h.Set("Vary", "Accept")
	if !wantsHTML(r.Header) {
		return unknownRoute(r)
	}
	fill := strings.NewReplacer("{{nonce}}", rand.Text())
	body := fill.Replace(web.Index)
	inert(h)
	h.Set("Content-Security-Policy", fill.Replace(pagePolicy))
	h["Referrer-Policy"] = noReferrer
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store") // a nonce is for once
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write([]byte(body)) // an error has nowhere to go
	return nil
}

// wantsHTML reports whether a client names HTML among what it accepts, as browsers do
// and tools do not.
func wantsHTML(h http.Header) bool {
	for _, accept := range h["Accept"] {
		for part := range strings.SplitSeq(accept, ",") {
			media, parameters, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(media), "text/html") && !refusedQuality(parameters) {
				return true
			}
		}
	}
	return false
}

// refusedQuality reports whether the parameters of a media type say q=0.
func refusedQuality(parameters string) bool {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(p, "=")
		if q, err := strconv.ParseFloat(strings.TrimSpace(value), 64); strings.EqualFold(strings.TrimSpace(name), "q") && err == nil {
			return q == 0
		}
	}
	return false
}

// file answers GET /page/FILE.
func (s *webpage) file(w http.ResponseWriter, r *http.Request, _ asked) error {
	f, ok := s.files[chi.URLParam(r, "file")]
	if !ok {
		return unknownRoute(r)
	}
	h := w.Header()
	inert(h)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // ask each time whether it has changed
	h.Set("Vary", "Accept-Encoding")
	h.Set("Etag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	content := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		content = f.small
	}
	h.Set("Content-Type", f.media)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	w.Write(content) // an error has nowhere to go
	return nil
}

// unknownRoute returns the error for a path at which there is nothing.
func unknownRoute(r *http.Request) error {
	return faas.Errorf(faas.CodeUnknownRoute, "there is nothing at %.200q; GET /api/openapi.yaml says what there is", r.URL.Path)
}
