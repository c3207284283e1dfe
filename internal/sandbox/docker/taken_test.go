package docker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	dockernet "github.com/docker/docker/api/types/network"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// What others do to what this engine made: none of it may make it take a stranger's
// thing for its own, or its own for gone.

// A sandbox whose container was renamed stays the same, and who took its name is let be.
func TestDockerRenamed(t *testing.T) {
	api := dockerClient(t)
	e, _ := open(t)
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, "def callme(): return 1\n")
	c := inspect(t, api, inst)
	if err := api.ContainerRename(t.Context(), c.ID, strings.TrimPrefix(c.Name, "/")+"-old"); err != nil {
		t.Fatal(err)
	}
	created, err := api.ContainerCreate(t.Context(), &container.Config{Image: baseImage(), Entrypoint: []string{"sleep", "infinity"}}, nil, nil, nil, strings.TrimPrefix(c.Name, "/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeContainer(t, api, created.ID) })
	if err := api.ContainerStart(t.Context(), created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := inst.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if err := inst.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	if err := inst.Resize(t.Context(), sandbox.Limits{Memory: 64 << 20, CPUs: 1}); err != nil {
		t.Error(err)
	}
	if got := inspect(t, api, inst).HostConfig.Memory; got != 64<<20 {
		t.Errorf("after Resize it has %d bytes of memory", got)
	}
	if listed, err := e.List(t.Context()); err != nil || len(listed) != 1 || listed[0] != sandbox.Instance(inst) {
		t.Errorf("List: %v, %v", listed, err)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ContainerInspect(t.Context(), c.ID); !errdefs.IsNotFound(err) {
		t.Errorf("Remove says that it is gone, and the container is there (%v)", err)
	}
	if s, err := api.ContainerInspect(t.Context(), created.ID); err != nil || !s.State.Running || s.State.Paused {
		t.Errorf("the stranger that took the name: %v, %v", s.State, err)
	}
}

// What is run from an image of a sandbox has all its labels, and is not it: its death
// is not the sandbox's, and no later engine value adopts it.
func TestDockerCopyOfASandbox(t *testing.T) {
	api := dockerClient(t)
	e, cfg := open(t)
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	c := inspect(t, api, inst)
	copied := func() string {
		labels := map[string]string{}
		for name, value := range c.Config.Labels {
			labels[name] = value
		}
		return idle(t, api, labels)
	}
	first := copied()
	if err := api.ContainerKill(t.Context(), first, "KILL"); err != nil {
		t.Fatal(err)
	}
	second := copied()
	listed, err := e.List(t.Context())
	if err != nil || len(listed) != 1 || listed[0] != sandbox.Instance(inst) {
		t.Errorf("List: %v, %v", listed, err)
	}
	for _, id := range []string{first, second} {
		if _, err := api.ContainerInspect(t.Context(), id); !errdefs.IsNotFound(err) {
			t.Errorf("a container that bears our label and is no sandbox is there (%v)", err)
		}
	}
	select {
	case <-inst.Done():
		t.Error("the sandbox counts as dead, for its copy died")
	default:
	}
	third := copied()
	other, err := docker.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	listed, err = other.List(t.Context())
	if err != nil || len(listed) != 1 {
		t.Fatalf("a later engine value lists %v, %v", listed, err)
	}
	if err := listed[0].Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{c.ID, third} {
		if _, err := api.ContainerInspect(t.Context(), id); !errdefs.IsNotFound(err) {
			t.Errorf("container %s is there (%v)", id, err)
		}
	}
}

// The network is joined that was looked at: one that somebody made again with traffic
// between containers is refused, and a good one is taken.
func TestDockerNetworkMadeAgain(t *testing.T) {
	api := dockerClient(t)
	log := &lines{}
	e, cfg := open(t, func(c *docker.Config) { c.Log = zerolog.New(log) })
	name := "fob-" + cfg.Aviary + "-egress"
	remove := func(inst sandbox.Instance) {
		t.Helper()
		if err := inst.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	remake := func(icc string) string {
		t.Helper()
		sandboxtest.Eventually(t, "the network can be removed", func() bool { return api.NetworkRemove(t.Context(), name) == nil })
		made, err := api.NetworkCreate(t.Context(), name, dockernet.CreateOptions{
			Driver: "bridge", Labels: map[string]string{"fob.aviary": cfg.Aviary},
			Options: map[string]string{"com.docker.network.bridge.enable_icc": icc},
		})
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	remove(sandboxtest.Create(t, e, sandboxtest.Spec("python")))
	remake("true")
	if inst, err := e.Create(t.Context(), sandboxtest.Spec("python")); err == nil {
		t.Errorf("a sandbox joined a network that lets sandboxes reach one another: %v", inspect(t, api, inst).NetworkSettings.Networks)
		remove(inst)
	} else if !strings.Contains(err.Error(), "lets sandboxes reach one another") {
		t.Errorf("Create: %v", err)
	}
	if !strings.Contains(log.String(), "somebody removed the sandboxes' network") {
		t.Errorf("the log says %s", log)
	}
	id := remake("false")
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	for _, end := range inspect(t, api, inst).NetworkSettings.Networks {
		if end.NetworkID != id {
			t.Errorf("it joined %s, and %s was looked at", end.NetworkID, id)
		}
	}
	if host, _ := inst.Addr(); host == inst.ID() {
		t.Error("its address on the network is not known")
	}
	if outdated, err := inst.Outdated(t.Context()); err != nil || outdated {
		t.Errorf("outdated: %v, %v", outdated, err)
	}

	// One that is found on another network is to be replaced.
	c := inspect(t, api, inst)
	if err := api.NetworkDisconnect(t.Context(), id, c.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := api.NetworkConnect(t.Context(), "bridge", c.ID, nil); err != nil {
		t.Fatal(err)
	}
	other, err := docker.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	listed, err := other.List(t.Context())
	if err != nil || len(listed) != 1 {
		t.Fatalf("List: %v, %v", listed, err)
	}
	if outdated, err := listed[0].Outdated(t.Context()); err != nil || !outdated {
		t.Errorf("on another network it is outdated: %v, %v", outdated, err)
	}
}

// The name of a driver image is anybody's to give. Sandboxes are made of what was
// built, and what took its name is built over.
func TestDockerImageRetagged(t *testing.T) {
	api := dockerClient(t)
	base := newBase(t, api)
	name := "fob-python:" + drivers.Digest("python", base)
	log := &lines{}
	e, cfg := open(t, func(c *docker.Config) { c.BaseImage, c.Log = base, zerolog.New(log) })
	t.Cleanup(func() { removeImage(t, api, name) })
	if err := e.Prepare(t.Context(), "python"); err != nil {
		t.Fatal(err)
	}
	built, err := api.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	retag := func() {
		t.Helper()
		if err := api.ImageTag(t.Context(), baseImage(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := api.ImageTag(t.Context(), name, name+"-kept"); err != nil { // or it might be gone
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, api, name+"-kept") })
	retag()
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	if got := inspect(t, api, inst).Image; got != built.ID {
		t.Errorf("the sandbox is made of %s, and %s was built", got, built.ID)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A later start finds the name at another image.
	other, err := docker.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	inst = sandboxtest.Create(t, other, sandboxtest.Spec("python"))
	if state := sandboxtest.State(t, inst); state != "blank" {
		t.Errorf("it is %q", state)
	}
	if !strings.Contains(log.String(), "somebody gave a driver image's name to another image") {
		t.Errorf("the log says %s", log)
	}
	if err := inst.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// The folder for sockets, and what is in it, may go at any time.
func TestDockerSocketsRemoved(t *testing.T) {
	dockerClient(t)
	log := &lines{}
	var own string
	e, cfg := open(t, func(c *docker.Config) {
		own = filepath.Join(c.SocketDir, "s")
		c.SocketDir, c.Log = own, zerolog.New(log)
	})
	old := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	if err := e.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python")) // before anybody has looked
	if state := sandboxtest.State(t, inst); state != "blank" {
		t.Errorf("it is %q", state)
	}
	for range 2 {
		if err := e.Check(t.Context()); err != nil {
			t.Error(err)
		}
	}
	select {
	case <-old.Done():
	default:
		t.Error("a sandbox that nobody can reach counts as alive")
	}
	select {
	case <-inst.Done():
		t.Error("one that can be reached counts as dead")
	default:
	}
	if n := strings.Count(log.String(), "somebody removed"); n != 2 { // the folder, and a sandbox's
		t.Errorf("%d lines say so:\n%s", n, log)
	}
	if err := old.Remove(t.Context()); err != nil {
		t.Error(err)
	}

	// Made again by hand, open to all.
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(own, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Check(t.Context()); err != nil {
		t.Error(err)
	}
	parent, err := os.Stat(filepath.Dir(own))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(own); err != nil || info.Mode() != fs.ModeDir|0o700 || owner(info) != owner(parent) {
		t.Errorf("the folder is %v, %v", info, err)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Error(err)
	}

	// Where it cannot be made, that is said, and it is mended when it can.
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Check(t.Context()); !errors.Is(err, sandbox.ErrNoFolder) {
		t.Errorf("Check: %v", err)
	}
	if _, err := e.Create(t.Context(), sandboxtest.Spec("python")); !errors.Is(err, sandbox.ErrNoFolder) {
		t.Errorf("Create: %v", err)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if err := e.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if left := traces(t, dockerClient(t), cfg.SocketDir, cfg.Aviary); len(left) > 1 { // the network
		t.Errorf("left: %q", left)
	}
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// A later engine value with another base image says of what it finds that it is outdated,
// and so it does of what bears no recipe, as an earlier dispatcher made it.
func TestDockerOutdated(t *testing.T) {
	api := dockerClient(t)
	bases := [2]string{}
	for n := range bases {
		bases[n] = "fob-test-base:" + sandboxtest.Aviary()
		if err := api.ImageTag(t.Context(), baseImage(), bases[n]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			removeImage(t, api, bases[n])
			removeImage(t, api, "fob-python:"+drivers.Digest("python", bases[n]))
		})
	}
	e, cfg := open(t, func(c *docker.Config) { c.BaseImage = bases[0] })
	spec := sandboxtest.Spec("python")
	inst := sandboxtest.Create(t, e, spec)
	if err := inst.Resize(t.Context(), sandbox.Limits{Memory: 64 << 20, CPUs: 0.5}); err != nil {
		t.Fatal(err)
	}
	for _, base := range bases {
		cfg.BaseImage = base
		other, err := docker.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Close() })
		listed, err := other.List(t.Context())
		if err != nil || len(listed) != 1 {
			t.Fatalf("List: %v, %v", listed, err)
		}
		if outdated, err := listed[0].Outdated(t.Context()); err != nil || outdated != (base == bases[1]) {
			t.Errorf("outdated: %v, %v", outdated, err)
		}
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// A folder that is mounted into the dispatcher's container and removed outside of it cannot
// be made again from within, and that is said. An open folder looks the same to us.
func TestDockerMountedSocketsRemoved(t *testing.T) {
	dockerClient(t)
	real := filepath.Join(shortDir(t), "s")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	mounted, err := os.Open(real)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mounted.Close() })
	e, _ := open(t, func(c *docker.Config) { c.SocketDir = fmt.Sprintf("/proc/self/fd/%d", mounted.Fd()) })
	if err := e.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(real); err != nil {
		t.Fatal(err)
	}
	if err := e.Check(t.Context()); !errors.Is(err, sandbox.ErrNoFolder) || !strings.Contains(err.Error(), "start that container again") {
		t.Errorf("Check: %v", err)
	}
}

// What cannot be removed, a container or a folder that is no sandbox's any more, keeps
// nobody from its sandboxes, and is tried again.
func TestDockerStuckStranger(t *testing.T) {
	api := dockerClient(t)
	t.Setenv("DOCKER_HOST", "unix://"+startSocketProxy(t, slices.DeleteFunc(documentedEndpoints(t), func(endpoint string) bool {
		return endpoint == "DELETE /containers/{id}"
	})).socket)
	var log bytes.Buffer
	e, cfg := open(t, func(c *docker.Config) { c.Log = zerolog.New(&log).Level(zerolog.WarnLevel) })
	stranger := idle(t, api, map[string]string{"fob.aviary": cfg.Aviary})
	folder := filepath.Join(cfg.SocketDir, cfg.Aviary+"-0123456789abcdef")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	unmount, stuck := func() {}, 0
	if os.Geteuid() == 0 { // who can put something there that is not cleared away
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		stuck, unmount = 1, sync.OnceFunc(func() {
			if err := syscall.Unmount(folder, 0); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(unmount)
	}
	for range 2 {
		if listed, err := e.List(t.Context()); err != nil || len(listed) != 0 {
			t.Errorf("List: %v, %v", listed, err)
		}
	}
	if said := log.String(); strings.Count(said, "cannot be removed") != 1 || strings.Count(said, "cannot be cleared") != stuck || !strings.Contains(said, stranger) {
		t.Errorf("the log says %s", said)
	}
	unmount()
	if _, err := e.List(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is there (%v)", err)
	}
}
