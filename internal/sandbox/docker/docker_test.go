package docker_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	dockernet "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// dockerClient is the tests' own way to the Docker engine.
func dockerClient(t *testing.T) *client.Client {
	t.Helper()
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err == nil {
		_, err = api.Ping(t.Context())
	}
	if err != nil {
		t.Fatalf("this test needs a Docker engine (make test sets one up): %v", err)
	}
	t.Cleanup(func() { api.Close() })
	return api
}

func baseImage() string {
	if image := os.Getenv("FOB_BASE_IMAGE"); image != "" {
		return image
	}
	return "debian:trixie-slim"
}

// shortDir is a folder with a path that leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func removeNetwork(t *testing.T, api *client.Client, name string) {
	t.Helper()
	if err := api.NetworkRemove(context.Background(), name); err != nil {
		t.Errorf("removing the network %s: %v", name, err)
	}
}

func config(aviary, dir string) docker.Config {
	return docker.Config{Aviary: aviary, SocketDir: dir, BaseImage: baseImage(), Log: zerolog.Nop()}
}

// open opens an engine on an aviary of its own, which is purged after the test.
func open(t *testing.T, change ...func(*docker.Config)) (*docker.Engine, docker.Config) {
	t.Helper()
	c := config(sandboxtest.Aviary(), shortDir(t))
	for _, f := range change {
		f(&c)
	}
	e, err := docker.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Purge(context.Background()); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e, c
}

// inspect returns what the Docker engine says of a sandbox.
func inspect(t *testing.T, api *client.Client, inst sandbox.Instance) container.InspectResponse {
	t.Helper()
	found, err := api.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "fob.sandbox="+inst.ID()))})
	if err != nil || len(found) != 1 {
		t.Fatalf("containers of sandbox %s: %v, %v", inst.ID(), found, err)
	}
	c, err := api.ContainerInspect(t.Context(), found[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func environment(c container.InspectResponse, name string) string {
	for _, entry := range c.Config.Env {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			return value
		}
	}
	return ""
}

// traces names what there is of an aviary.
func traces(t *testing.T, api *client.Client, dir, aviary string) []string {
	t.Helper()
	ours := filters.NewArgs(filters.Arg("label", "fob.aviary="+aviary))
	var all []string
	containers, err := api.ContainerList(context.Background(), container.ListOptions{All: true, Filters: ours})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		all = append(all, "container "+c.ID)
	}
	networks, err := api.NetworkList(context.Background(), dockernet.ListOptions{Filters: ours})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		all = append(all, "network "+n.Name)
	}
	folders, err := filepath.Glob(filepath.Join(dir, aviary+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(all, folders...)
}

func logOf(t *testing.T, api *client.Client, inst sandbox.Instance) string {
	t.Helper()
	stream, err := api.ContainerLogs(t.Context(), inspect(t, api, inst).ID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, stream); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestDockerConformance(t *testing.T) {
	// The test's own client keeps no connection, which would look like a leak.
	api := dockerClient(t)
	dir := shortDir(t)
	sandboxtest.Run(t, sandboxtest.Harness{
		Open: func(t *testing.T, aviary string) sandbox.Engine {
			e, err := docker.New(t.Context(), config(aviary, dir))
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		Token: func(t *testing.T, inst sandbox.Instance) string {
			defer api.Close()
			return environment(inspect(t, api, inst), "FOB_TOKEN")
		},
		Log: func(t *testing.T, inst sandbox.Instance) string {
			defer api.Close()
			return logOf(t, api, inst)
		},
		Folder: func(t *testing.T, inst sandbox.Instance) (here, inside string) {
			found, err := filepath.Glob(filepath.Join(dir, "*-"+inst.ID()))
			if err != nil || len(found) != 1 {
				t.Fatalf("folders of sandbox %s: %q, %v", inst.ID(), found, err)
			}
			return found[0], "/run/fob"
		},
		Traces: func(t *testing.T, aviary string) []string {
			defer api.Close()
			return traces(t, api, dir, aviary)
		},
	})
}
