package httpapi

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

func gzipped(text string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	io.WriteString(w, text)
	w.Close()
	return out.String()
}

func deflated(text string) string {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	io.WriteString(w, text)
	w.Close()
	return out.String()
}

// TestContentEncoding: a compressed body is what it was, wherever there is one.
func TestContentEncoding(t *testing.T) {
	registry := newFakeRegistry()
	var got *received
	server := httptest.NewServer(newAPI(t, registry, func(ctx context.Context, call *received) (faas.Result, error) {
		got = call
		return plainFunction(ctx, call)
	}))
	defer server.Close()
	ask := func(method, path, coding, body string) (int, http.Header, string) {
		t.Helper()
		head := method + " " + path + " HTTP/1.1\r\nHost: x\r\nContent-Encoding: " + coding + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
		return rawRequest(t, server.Listener.Addr().String(), head, body)
	}
	const code = `{"code": "def callme(): pass"}`
	for coding, body := range map[string]string{
		"gzip": gzipped(code), "X-GZIP": gzipped(code[:9]) + gzipped(code[9:]), "deflate": deflated(code), "identity": code, "": code,
	} {
		got, registry.draft, registry.settings = nil, faas.Draft{}, faas.SettingsPatch{}
		if status, _, answer := ask("POST", "/api/call/hello", coding, body); status != 200 || string(got.Body) != code || got.Header["Content-Encoding"] != nil {
			t.Errorf("%q: a call is answered %d %s, with %+v", coding, status, answer, got)
		}
		for _, path := range []string{"POST /api/gen", "PUT /api/functions/hello"} {
			method, path, _ := strings.Cut(path, " ")
			registry.draft = faas.Draft{}
			if status, _, answer := ask(method, path, coding, body); status != 200 || registry.draft.Code != "def callme(): pass" {
				t.Errorf("%q: %s is answered %d %s, with %q", coding, path, status, answer, registry.draft.Code)
			}
		}
	}
	if status, _, _ := ask("PATCH", "/api/functions/hello", "gzip", gzipped(`{"timeout": "3s"}`)); status != 200 || !reflect.DeepEqual(registry.settings, parse(t, map[string]string{"timeout": "3s"})) {
		t.Errorf("PATCH is answered %d, with %v", status, registry.settings)
	}
	for _, coding := range []string{"br", "zstd", "gzip, gzip", "gzip, identity", "compress", "nonsense"} {
		for _, path := range []string{"/api/call/hello", "/api/gen"} {
			got = nil
			status, header, answer := ask("POST", path, coding, code)
			wantProblem(t, status, header, answer, 415, faas.CodeUnknownCoding)
			if header.Get("Accept-Encoding") != acceptedCodings || got != nil {
				t.Errorf("%s of %s: answered with %v", coding, path, header)
			}
		}
	}
	whole := gzipped(code)
	for what, body := range map[string][2]string{
		"no gzip":              {"gzip", code},
		"cut short":            {"gzip", whole[:len(whole)-9]},
		"in its head":          {"gzip", whole[:5]},
		"a wrong checksum":     {"gzip", whole[:len(whole)-8] + "\x00\x00\x00\x00" + whole[len(whole)-4:]},
		"with something after": {"gzip", whole + "x"},
		"deflate, and after":   {"deflate", deflated(code) + "xyz"},
		"no deflate":           {"deflate", whole},
		"deflate, cut short":   {"deflate", deflated(code)[:12]},
	} {
		for _, path := range []string{"/api/call/hello", "/api/gen"} {
			status, header, answer := ask("POST", path, body[0], body[1])
			if p := wantProblem(t, status, header, answer, 400, faas.CodeBadRequest); !strings.Contains(p.Detail, "Content-Encoding") {
				t.Errorf("%s: %s", what, p.Detail)
			}
		}
	}
	// Of what comes out no more than a body may have.
	for _, coding := range []string{"gzip", "deflate"} {
		pack := map[string]func(string) string{"gzip": gzipped, "deflate": deflated}[coding]
		if status, _, _ := ask("POST", "/api/gen", coding, pack(strings.Repeat("x", testMaxBody))); status != 200 {
			t.Errorf("%s of the largest body: answered %d", coding, status)
		}
		for _, path := range []string{"/api/call/hello", "/api/gen"} {
			status, header, answer := ask("POST", path, coding, pack(strings.Repeat("x", testMaxBody+1)))
			wantProblem(t, status, header, answer, 413, faas.CodeTooLarge)
		}
	}
}

// TestBomb: 200 MB in 200 KB take the memory that a body may take.
func TestBomb(t *testing.T) {
	bomb := gzipped(strings.Repeat("\x00", 200<<20))
	a := newAPI(t, newFakeRegistry(), plainFunction)
	for _, path := range []string{"/api/call/hello", "/api/gen"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := serve(a, "POST", path, bomb, "Content-Encoding", "gzip")
		runtime.ReadMemStats(&after)
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 413, faas.CodeTooLarge)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 8*testMaxBody {
			t.Errorf("%s: %d bytes were allocated", path, spent)
		}
	}
}

// TestStreamedEncoding: a function that takes the request streams what comes out.
func TestStreamedEncoding(t *testing.T) {
	const size = 3 * testMaxBody
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		if call.Stream == nil || call.Header["Content-Encoding"] != nil {
			t.Errorf("called with %v", call.Header)
		}
		rest, err := io.Copy(io.Discard, call.Stream)
		if n := int64(len(call.Body)) + rest; n != size || err != nil {
			t.Errorf("got %d bytes, %v", n, err)
		}
		return plainResult("{}"), nil
	})
	if w := serve(a, "POST", "/api/call/hello", gzipped(strings.Repeat("x", size)), "Content-Encoding", "gzip"); w.Code != 200 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

// TestReadAgain: a compressed body that failed, or ended, does so again.
func TestReadAgain(t *testing.T) {
	for coding, whole := range map[string]string{"gzip": gzipped("hello"), "deflate": deflated("hello")} {
		for what, body := range map[string]string{"whole": whole, "cut short": whole[:len(whole)-2], "none": "hello", "more": whole + "x"} {
			r := httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.Header.Set("Content-Encoding", coding)
			if err := decode(r); err != nil {
				t.Fatal(err)
			}
			_, first := io.ReadAll(r.Body)
			if (first == nil) != (what == "whole") {
				t.Errorf("%s, %s: %v", coding, what, first)
			}
			for range 2 {
				if n, err := r.Body.Read(make([]byte, 10)); n > 0 || err == nil || first != nil && err != first {
					t.Errorf("%s, %s: after %v it is %d, %v", coding, what, first, n, err)
				}
			}
		}
	}
}
