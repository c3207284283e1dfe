package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestStrangers: what a proxy or another program answers is no dispatcher's success.
func TestStrangers(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method)
		if strings.HasPrefix(r.URL.Path, "/moved/") {
			http.Redirect(w, r, "/page/", http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if strings.HasPrefix(r.URL.Path, "/gateway/") {
			w.WriteHeader(http.StatusBadGateway)
		}
		fmt.Fprint(w, "<html>welcome</html>")
	}))
	t.Cleanup(server.Close)
	for at, want := range map[string]string{"moved": "sends elsewhere", "page": "200 OK", "gateway": "502 Bad Gateway"} {
		remote := Remote{URL: server.URL + "/" + at}
		for _, command := range []interface{ Run(Running) error }{
			&List{Remote: remote}, &Show{Remote: remote, Name: "x"}, &Code{Remote: remote, Name: "x"}, &Call{Remote: remote, Name: "x"},
			&Rename{Remote: remote, Name: "x", NewName: "y"}, &Delete{Remote: remote, Names: []string{"x"}},
			&Calls{Remote: remote, Limit: 1}, &Calls{Remote: remote, Limit: 1, Follow: true},
			&Logs{Remote: remote, Limit: 1}, &Logs{Remote: remote, Limit: 1, Follow: true}, &Top{Remote: remote, Every: time.Second, Once: true},
		} {
			asked = nil
			err := command.Run(nil)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %T says %v, want %q", at, command, err, want)
			}
			var said strings.Builder
			if status := Report(&said, "fob", err); status != 1 {
				t.Errorf("%s: %T ends with %d, want 1", at, command, status)
			}
			if len(asked) != 1 {
				t.Errorf("%s: %T asked %v", at, command, asked)
			}
		}
	}
}

// TestCompletionTakesNames: a shell puts what is found on its command line as it is, so
// it is names and nothing else.
func TestCompletionTakesNames(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"functions": [{"name": "a$(reboot)"}, {"name": "a;id"}, {"name": "*"}, {"name": "a b"}, {"name": "-rf"}, {"name": "able"}, {"id": "x"}], "next": null}`)
	}))
	t.Cleanup(server.Close)
	line := &halfLine{values: map[string]string{"url": server.URL}}
	if names := line.lookUp("function", "", nil, t.TempDir()); !slices.Equal(names, []string{"able"}) {
		t.Errorf("%q", names)
	}
}

// TestDeployWaitsNotForever: whatever Retry-After says, a deployment has an end.
func TestDeployWaitsNotForever(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"detail": "full", "code": %q, "retryable": true}`, faas.CodeNoCapacity)
	}))
	t.Cleanup(server.Close)
	l, err := (&Remote{URL: server.URL}).open(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.put(&deployed{Name: "x"}, []byte("{}")); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("%v", err)
	}
}
