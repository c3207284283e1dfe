package docker_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newBase makes a base image of the test's own, which the engine has nothing cached
// for. It is made of the Python driver image, so that a build finds the packages that
// it would install.
func newBase(t *testing.T, api *client.Client) string {
	t.Helper()
	e, _ := open(t)
	if err := e.Prepare(t.Context(), "python"); err != nil {
		t.Fatalf("%v (this test needs the image %s; make test provides it)", err, baseImage())
	}
	created, err := api.ContainerCreate(t.Context(), &container.Config{Image: "fob-python:" + drivers.Digest("python", baseImage()), Entrypoint: []string{"true"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer removeContainer(t, api, created.ID)
	base := "fob-test-base:" + sandboxtest.Aviary()
	asDebian := []string{"LABEL unique=" + base, "USER root", `ENTRYPOINT []`, `CMD ["bash"]`}
	if _, err := api.ContainerCommit(t.Context(), created.ID, container.CommitOptions{Reference: base, Changes: asDebian}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, api, base) })
	return base
}

// rebuildBase gives a base image's name to one that has a file more.
func rebuildBase(t *testing.T, api *client.Client, base string) {
	t.Helper()
	created, err := api.ContainerCreate(t.Context(), &container.Config{Image: base, Entrypoint: []string{"touch", "/rebuilt"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer removeContainer(t, api, created.ID)
	if err := api.ContainerStart(t.Context(), created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	over, failed := api.ContainerWait(t.Context(), created.ID, container.WaitConditionNotRunning)
	select {
	case <-over:
	case err := <-failed:
		t.Fatal(err)
	}
	if _, err := api.ContainerCommit(t.Context(), created.ID, container.CommitOptions{Reference: base}); err != nil {
		t.Fatal(err)
	}
}

func removeImage(t *testing.T, api *client.Client, name string) {
	t.Helper()
	if _, err := api.ImageRemove(context.Background(), name, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
		t.Errorf("removing the image %s: %v", name, err)
	}
}

func TestDockerBuildsMissingImageOnce(t *testing.T) {
	api := dockerClient(t)
	base := newBase(t, api)
	name := "fob-python:" + drivers.Digest("python", base)
	log := &lines{}
	e, _ := open(t, func(c *docker.Config) { c.BaseImage, c.Log = base, zerolog.New(log) })
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if err := e.Prepare(t.Context(), "python"); err != nil {
				t.Errorf("Prepare: %v", err)
			}
		})
	}
	all.Go(func() {
		if _, err := e.Create(t.Context(), sandboxtest.Spec("python")); err != nil {
			t.Errorf("Create while the image is built: %v", err)
		}
	})
	all.Wait()
	built, err := api.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if n := strings.Count(text, "the python driver image is built"); n != 1 {
		t.Errorf("it was built %d times:\n%s", n, text)
	}
	if !strings.Contains(text, "Step 1/") {
		t.Errorf("no progress on the log:\n%s", text)
	}
	if label, labelled := built.Config.Labels["fob.aviary"]; labelled {
		t.Errorf("the image has the aviary's label %q, which every container of it would inherit", label)
	}

	// Another base image takes the name of the one before.
	if err := api.ImageTag(t.Context(), base, base+"-before"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, api, base+"-before") })
	rebuildBase(t, api, base)
	ctx, cancel := context.WithCancel(t.Context())
	rebuilding := &lines{}
	later, _ := open(t, func(c *docker.Config) { c.BaseImage, c.Log = base, zerolog.New(rebuilding) })
	ended := make(chan error, 1)
	go func() { ended <- later.Prepare(ctx, "python") }()
	sandboxtest.Eventually(t, "it is built again", func() bool { return strings.Contains(rebuilding.String(), "Step ") })
	cancel()
	<-ended
	if !strings.Contains(rebuilding.String(), "the base image is another one") {
		t.Errorf("it does not say why it builds:\n%s", rebuilding)
	}
	if _, err := api.ImageRemove(t.Context(), base, image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	// Without a base image there is nothing to compare.
	if err := later.Prepare(t.Context(), "python"); err != nil {
		t.Errorf("without the base image: %v", err)
	}
	if err := api.ImageTag(t.Context(), base+"-before", base); err != nil {
		t.Fatal(err)
	}

	// Somebody prunes images while the dispatcher runs: the next creation
	// builds it anew (from the engine's cache or not).
	if err := e.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	removeImage(t, api, name)
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	t.Cleanup(func() {
		if err := inst.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		removeImage(t, api, name)
	})
	if state := sandboxtest.State(t, inst); state != "blank" {
		t.Errorf("it is %q", state)
	}
}

func TestDockerBuildFailureSaysWhatToDo(t *testing.T) {
	dockerClient(t)
	e, _ := open(t, func(c *docker.Config) { c.BaseImage = "127.0.0.1:1/fob-test-no-such-image:none" })
	_, err := e.Create(t.Context(), sandboxtest.Spec("python"))
	if err == nil || !strings.Contains(err.Error(), "FOB_BASE_IMAGE") || !strings.Contains(err.Error(), "Step ") {
		t.Errorf("Create: %v: want the setting to change, and the output's end", err)
	}
}

func TestDockerBuildCanBeCancelled(t *testing.T) {
	api := dockerClient(t)
	base := newBase(t, api)
	log := &lines{}
	e, _ := open(t, func(c *docker.Config) { c.BaseImage, c.Log = base, zerolog.New(log) })
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- e.Prepare(ctx, "python") }()
	sandboxtest.Eventually(t, "the build runs", func() bool { return strings.Contains(log.String(), "Step ") })
	cancel()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("Prepare succeeded")
		}
	case <-time.After(sandboxtest.Patience):
		t.Fatal("Prepare goes on although its context has ended")
	}
}
