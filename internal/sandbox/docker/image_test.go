package docker

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
)

func TestBuildArgs(t *testing.T) {
	environ := map[string]string{"HTTP_PROXY": "http://a:1", "https_proxy": "http://b:2", "NO_PROXY": "x", "no_proxy": "y", "PATH": "/bin"}
	got := buildArgs("base", func(name string) string { return environ[name] })
	want := map[string]string{"BASE": "base", "HTTP_PROXY": "http://a:1", "http_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2", "https_proxy": "http://b:2", "NO_PROXY": "y", "no_proxy": "y"}
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("there are %v", slices.Sorted(maps.Keys(got)))
	}
	for name, value := range want {
		if got[name] == nil || *got[name] != value {
			t.Errorf("%s is %v, want %s", name, got[name], value)
		}
	}
}

// An image of which it is not known whether its base is still the same is not taken
// the next time either.
func TestImageOfUnknownBase(t *testing.T) {
	const base = "debian:base"
	broken := true
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1.41/images/"), "/json")
		if name == base && broken {
			http.Error(w, `{"message": "the disk does not answer"}`, http.StatusInternalServerError)
			return
		}
		w.Write([]byte(`{"Id": "sha256:1", "RootFS": {"Layers": ["a"]}, "Config": {"Labels": {"` + labelImage + `": "` + name + `"}}}`))
	}))
	defer engine.Close()
	api, err := client.NewClientWithOpts(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	images, err := newImages(api, zerolog.Nop(), base)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if id, err := images.id(t.Context(), "python"); id != "" || err == nil {
			t.Errorf("it has the ID %q, and the error is %v", id, err)
		}
	}
	broken = false
	if id, err := images.id(t.Context(), "python"); id != "sha256:1" || err != nil {
		t.Errorf("it has the ID %q, and the error is %v", id, err)
	}
}
