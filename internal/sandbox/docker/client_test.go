package docker_test

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/sandbox/docker"
)

// Podman answers as Docker does, up to the first sandbox. So it is told at the start.
func TestPodmanIsRefused(t *testing.T) {
	socket := filepath.Join(shortDir(t), "podman.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	podman := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Libpod-Api-Version", "5.4.2")
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Write([]byte("OK"))
		case strings.HasSuffix(r.URL.Path, "/info"):
			w.Write([]byte(`{"Name": "here", "NCPU": 2, "MemTotal": 1073741824, "ServerVersion": "5.4.2", "DefaultRuntime": "crun"}`))
		case strings.HasSuffix(r.URL.Path, "/version"):
			w.Write([]byte(`{"Components": [{"Name": "Podman Engine", "Version": "5.4.2"}, {"Name": "Conmon", "Version": "2.1.12"}], "Version": "5.4.2", "ApiVersion": "1.41"}`))
		default:
			http.Error(w, `{"message": "not this far"}`, http.StatusInternalServerError)
		}
	})}
	go podman.Serve(listener)
	t.Cleanup(func() { podman.Close() })
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	e, err := docker.New(t.Context(), config("tpodman", shortDir(t)))
	if err == nil {
		e.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "is Podman Engine 5.4.2, and not Docker") {
		t.Errorf("New: %v", err)
	}
}

// The docker command's contexts are not ours, and who chose one hears so.
func TestDockerContext(t *testing.T) {
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("DOCKER_CONTEXT", "elsewhere")
	e, err := docker.New(t.Context(), config("tcontext", shortDir(t)))
	if err == nil {
		e.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "DOCKER_CONTEXT=elsewhere") || !strings.Contains(err.Error(), "set DOCKER_HOST") {
		t.Errorf("New: %v", err)
	}
	// Which says where its engine is, is enough.
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	if e, err = docker.New(t.Context(), config("tcontext", shortDir(t))); err == nil || strings.Contains(err.Error(), "DOCKER_CONTEXT") {
		t.Errorf("New: %v, %v", e, err)
	}
}
