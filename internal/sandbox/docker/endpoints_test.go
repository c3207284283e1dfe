package docker_test

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// endpoints says what each method of the Docker client that we use asks for.
var endpoints = map[string]string{
	"Ping":              "HEAD /_ping", // the negotiation of the version
	"ServerVersion":     "GET /version",
	"Info":              "GET /info",
	"Events":            "GET /events",
	"ContainerList":     "GET /containers/json",
	"ContainerCreate":   "POST /containers/create",
	"ContainerStart":    "POST /containers/{id}/start",
	"ContainerInspect":  "GET /containers/{id}/json",
	"ContainerUpdate":   "POST /containers/{id}/update",
	"ContainerPause":    "POST /containers/{id}/pause",
	"ContainerUnpause":  "POST /containers/{id}/unpause",
	"ContainerLogs":     "GET /containers/{id}/logs",
	"ContainerStatPath": "HEAD /containers/{id}/archive",
	"ContainerRemove":   "DELETE /containers/{id}",
	"ImageInspect":      "GET /images/{id}/json",
	"ImageBuild":        "POST /build",
	"VolumeList":        "GET /volumes",
	"VolumeCreate":      "POST /volumes/create",
	"VolumeRemove":      "DELETE /volumes/{id}",
	"NetworkList":       "GET /networks",
	"NetworkCreate":     "POST /networks/create",
	"NetworkInspect":    "GET /networks/{id}",
	"NetworkRemove":     "DELETE /networks/{id}",
}

// documentedEndpoints reads the table of SECURITY.md's section on the engine's
// socket: the tables of other sections are of our own routes.
func documentedEndpoints(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## The engine's socket\n")
	if !found {
		t.Fatal("SECURITY.md has no section on the engine's socket")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var all []string
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:GET|HEAD|POST|PUT|DELETE) /[^`]*)` \\|").FindAllStringSubmatch(section, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestDockerEndpoints holds the endpoints that SECURITY.md lists, for those who
// put a proxy before the engine's socket, against the code: against the methods
// that it calls, and against what it asks for behind such a proxy.
func TestDockerEndpoints(t *testing.T) {
	documented := documentedEndpoints(t)
	if want := slices.Sorted(maps.Values(endpoints)); !slices.Equal(slices.Sorted(slices.Values(documented)), want) {
		t.Errorf("SECURITY.md lists\n%v\nand the code needs\n%v", documented, want)
	}
	used := map[string]bool{"Ping": true}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bapi\.([A-Z]\w+)\b`).FindAllSubmatch(text, -1) {
			if name := string(m[1]); name != "Close" && name != "DaemonHost" { // which ask for nothing
				used[name] = true
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(endpoints)); !slices.Equal(got, want) {
		t.Errorf("the code calls %v, and this test knows %v", got, want)
	}

	p := startSocketProxy(t, documented)
	t.Setenv("DOCKER_HOST", "unix://"+p.socket)
	e, cfg := open(t)
	if err := e.Prepare(t.Context(), "python"); err != nil {
		t.Fatal(err)
	}
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, "def callme(): return 1\n")
	if err := inst.Resize(t.Context(), sandbox.Limits{Memory: 256 << 20, CPUs: 0.5, Pids: 100}); err != nil {
		t.Error(err)
	}
	if err := inst.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if err := inst.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	var one int
	if sandboxtest.Call(t, inst, nil, &one); one != 1 {
		t.Errorf("it answers %d", one)
	}
	second, _ := open(t, func(c *docker.Config) { *c = cfg })
	if listed, err := second.List(t.Context()); err != nil || len(listed) != 1 {
		t.Errorf("List: %v, %v", listed, err)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := e.Purge(t.Context()); err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.refused) > 0 {
		t.Errorf("it asked for %v", p.refused)
	}
	if len(p.asked) < 14 {
		t.Errorf("it asked only for %v", slices.Sorted(maps.Keys(p.asked)))
	}
}

// socketProxy passes on to the engine what is asked of some endpoints.
type socketProxy struct {
	socket string

	mu      sync.Mutex
	asked   map[string]bool // endpoints
	refused []string
}

func startSocketProxy(t *testing.T, allowed []string) *socketProxy {
	t.Helper()
	engine, err := url.Parse(dockerClient(t).DaemonHost())
	if err != nil || engine.Scheme != "unix" {
		t.Fatalf("the engine is at %v (%v), and not at a Unix socket", engine, err)
	}
	patterns := map[string]*regexp.Regexp{}
	for _, endpoint := range allowed {
		method, path, _ := strings.Cut(endpoint, " ")
		path = strings.ReplaceAll(regexp.QuoteMeta(path), `\{id\}`, `[^/]+`)
		if endpoint == "GET /images/{id}/json" { // whose names may have slashes
			path = strings.ReplaceAll(path, `[^/]+`, `.+`)
		}
		patterns[endpoint] = regexp.MustCompile(`^` + method + ` (?:/v[0-9.]+)?` + path + `$`)
	}
	p := &socketProxy{socket: filepath.Join(shortDir(t), "engine.sock"), asked: map[string]bool{}}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", engine.Path)
	}}
	pass := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		Transport:     transport,
		FlushInterval: -1, // of events
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for endpoint, pattern := range patterns {
			if pattern.MatchString(r.Method + " " + r.URL.Path) {
				p.mu.Lock()
				p.asked[endpoint] = true
				p.mu.Unlock()
				pass.ServeHTTP(w, r)
				return
			}
		}
		p.mu.Lock()
		p.refused = append(p.refused, r.Method+" "+r.URL.Path)
		p.mu.Unlock()
		http.Error(w, `{"message": "not through this proxy"}`, http.StatusForbidden)
	})}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return p
}
