package docker_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// childFolder, when set, makes the test binary a dispatcher in little: it
// creates a sandbox with its sockets in that folder, calls it, and clears up.
// So it can be run as another user, and inside a container.
const childFolder = "FOB_TEST_SOCKETS"

func TestMain(m *testing.M) {
	dir := os.Getenv(childFolder)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := dispatch(dir); err != nil {
		fmt.Println("child:", err)
		os.Exit(1)
	}
	fmt.Println("child: it works")
}

// itWorks is what the child prints last.
const itWorks = "child: it works"

func dispatch(dir string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cfg := config(sandboxtest.Aviary(), dir)
	e, err := docker.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if purged := e.Purge(ctx); err == nil {
			err = purged
		}
		if folders, _ := filepath.Glob(filepath.Join(dir, cfg.Aviary+"-*")); err == nil && len(folders) > 0 {
			err = fmt.Errorf("left: %q", folders)
		}
		e.Close()
	}()
	inst, err := e.Create(ctx, sandboxtest.Spec("python"))
	if err != nil {
		return err
	}
	for _, step := range []struct {
		method, path string
		body         map[string]any
	}{
		{http.MethodPut, "/_fob/function", map[string]any{"code": "def callme(n):\n    return 2 * n\n"}},
		{http.MethodPost, "/", map[string]any{"n": 21}},
	} {
		status, body, err := sandboxtest.Do(ctx, inst.Dial, step.method, step.path, "", step.body)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%s %s: %d %s, %w", step.method, step.path, status, body, err)
		}
		if step.path == "/" && !bytes.Contains(body, []byte("42")) {
			return fmt.Errorf("the answer is %s", body)
		}
	}
	if err := inst.Remove(ctx); err != nil {
		return err
	}
	// Somebody clears the folder away, or what is in it where it is a mount itself.
	os.RemoveAll(dir)
	if err := e.Check(ctx); err != nil {
		return err
	}
	// A second one is left for Purge.
	_, err = e.Create(ctx, sandboxtest.Spec("python"))
	return err
}

// staticChild builds the test binary without C, so that it runs anywhere.
func staticChild(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "child")
	build := exec.Command("go", "test", "-c", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the child: %v\n%s", err, output)
	}
	return path
}

// engineSocket is the Docker engine's socket on this machine.
func engineSocket(t *testing.T, api *client.Client) string {
	t.Helper()
	path, local := strings.CutPrefix(api.DaemonHost(), "unix://")
	if !local {
		t.Fatalf("this test needs the Docker engine's socket on this machine, and DOCKER_HOST is %s", api.DaemonHost())
	}
	return path
}

func TestDockerAsOrdinaryUser(t *testing.T) {
	api := dockerClient(t)
	prepare(t)
	sockets := shortDir(t)
	child := exec.CommandContext(t.Context(), staticChild(t))
	child.Env = append(os.Environ(), childFolder+"="+filepath.Join(sockets, "s"))
	// Whoever is not root runs these tests as an ordinary user anyway.
	if os.Geteuid() == 0 {
		var socket syscall.Stat_t
		if err := syscall.Stat(engineSocket(t, api), &socket); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(sockets, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000, Groups: []uint32{socket.Gid}}}
	}
	output, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(output), itWorks) {
		t.Errorf("%v: %s", err, output)
	}
	if os.Geteuid() != 0 {
		return // who may use Docker cannot give that up
	}
	outsider := exec.CommandContext(t.Context(), child.Path)
	outsider.Env = child.Env
	outsider.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	output, err = outsider.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "usermod -aG docker") {
		t.Errorf("not in the group: %v: %s", err, output)
	}
}

// prepare builds the image that a child needs, so that its time is its own.
func prepare(t *testing.T) {
	t.Helper()
	e, _ := open(t)
	if err := e.Prepare(t.Context(), "python"); err != nil {
		t.Fatal(err)
	}
}

// runInContainer runs the child in a container and returns what it printed.
//
// The engine's socket is at one of the two places where it is found by itself. In the
// one under /var/run, which is a link in the image, engines of 28 cannot look into the
// container.
func runInContainer(t *testing.T, api *client.Client, binary, sockets, engine string, host container.HostConfig) string {
	t.Helper()
	host.Binds = append(host.Binds, binary+":/child:ro", engineSocket(t, api)+":"+engine)
	created, err := api.ContainerCreate(t.Context(), &container.Config{
		Image:      baseImage(),
		Entrypoint: []string{"/child"},
		Env:        []string{childFolder + "=" + sockets, "FOB_BASE_IMAGE=" + baseImage()},
	}, &host, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeContainer(t, api, created.ID) })
	if err := api.ContainerStart(t.Context(), created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	ended, failed := api.ContainerWait(t.Context(), created.ID, container.WaitConditionNotRunning)
	select {
	case <-ended:
	case err := <-failed:
		t.Fatal(err)
	}
	stream, err := api.ContainerLogs(t.Context(), created.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
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

func removeContainer(t *testing.T, api *client.Client, id string) {
	t.Helper()
	err := api.ContainerRemove(context.Background(), id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("removing container %s: %v", id, err)
	}
}

// idle starts a container that does nothing, with labels.
func idle(t *testing.T, api *client.Client, labels map[string]string) string {
	t.Helper()
	created, err := api.ContainerCreate(t.Context(), &container.Config{
		Image: baseImage(), Entrypoint: []string{"sleep", "infinity"}, Labels: labels,
	}, &container.HostConfig{}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeContainer(t, api, created.ID) })
	if err := api.ContainerStart(t.Context(), created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return created.ID
}

func TestDockerDispatcherInContainer(t *testing.T) {
	api := dockerClient(t)
	prepare(t)
	binary := staticChild(t)
	vol, err := api.VolumeCreate(t.Context(), volume.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.VolumeRemove(context.Background(), vol.Name, true); err != nil {
			t.Error(err)
		}
	})
	folder := shortDir(t)
	for name, run := range map[string]struct {
		sockets string
		host    container.HostConfig
	}{
		"volume":              {"/sockets", container.HostConfig{Binds: []string{vol.Name + ":/sockets"}}},
		"inside a volume":     {"/data/deep/er", container.HostConfig{Binds: []string{vol.Name + ":/data"}}},
		"bind mount":          {"/sockets", container.HostConfig{Binds: []string{folder + ":/sockets"}}},
		"another's network":   {"/sockets", container.HostConfig{Binds: []string{vol.Name + ":/sockets"}, NetworkMode: container.NetworkMode("container:" + idle(t, api, nil))}},
		"the host's network":  {"/sockets", container.HostConfig{Binds: []string{vol.Name + ":/sockets"}, NetworkMode: "host"}},
		"no network":          {"/sockets", container.HostConfig{Binds: []string{vol.Name + ":/sockets"}, NetworkMode: "none"}},
		"mount in a mount":    {"/data/sockets", container.HostConfig{Binds: []string{folder + ":/data", vol.Name + ":/data/sockets"}}},
		"the host's own path": {filepath.Join(folder, "same"), container.HostConfig{Binds: []string{folder + ":" + folder}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, socket := range []string{"/run/docker.sock", "/var/run/docker.sock"} {
				if output := runInContainer(t, api, binary, run.sockets, socket, run.host); !strings.Contains(output, itWorks) {
					t.Errorf("with the engine's socket at %s: %s", socket, output)
				}
			}
		})
	}
	for name, host := range map[string]container.HostConfig{
		"nothing mounted":                          {},
		"nothing mounted, with the host's network": {NetworkMode: "host"},
	} {
		t.Run(name, func(t *testing.T) {
			output := runInContainer(t, api, binary, "/sockets", "/run/docker.sock", host)
			if !strings.Contains(output, "FOB_SOCKETS") || !strings.Contains(output, "mount a volume") {
				t.Errorf("it does not say what to do: %s", output)
			}
		})
	}
}

// What is not ours is not touched, whatever it looks like.
func TestDockerPurgeSparesStrangers(t *testing.T) {
	api := dockerClient(t)
	log := &lines{}
	others := idle(t, api, map[string]string{"fob.aviary": "another-aviary"})
	e, cfg := open(t, func(c *docker.Config) { c.Log = zerolog.New(log) })
	if text := log.String(); strings.Count(text, "other aviaries on this engine") != 1 || !strings.Contains(text, `"another-aviary":1`) {
		t.Errorf("of other aviaries the log says %s", text)
	}
	strangers := []string{
		others,
		idle(t, api, nil),
		idle(t, api, map[string]string{"fob.sandbox": "0123456789abcdef", "fob.lang": "python"}),
		idle(t, api, map[string]string{"fob.aviary": cfg.Aviary + "x", "fob.sandbox": "0123456789abcdef"}),
		idle(t, api, map[string]string{"fob.aviary": "", "fob.sandbox": "0123456789abcdef"}),
	}
	folder := filepath.Join(cfg.SocketDir, cfg.Aviary+"x-0123456789abcdef")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	ours := idle(t, api, map[string]string{"fob.aviary": cfg.Aviary}) // has no sandbox's label
	if listed, err := e.List(t.Context()); err != nil || len(listed) != 1 {
		t.Errorf("listed %v, %v: want the one sandbox", listed, err)
	}
	if _, err := api.ContainerInspect(t.Context(), ours); err == nil {
		t.Error("List left a container with the aviary's label that is no sandbox")
	}
	if err := e.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range strangers {
		if c, err := api.ContainerInspect(t.Context(), id); err != nil || !c.State.Running {
			t.Errorf("a stranger's container is gone or dead: %v", err)
		}
	}
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("another aviary's folder: %v", err)
	}
}

// A network that cannot go, for a stranger uses it, keeps nothing else.
func TestDockerPurgeGoesOn(t *testing.T) {
	api := dockerClient(t)
	e, cfg := open(t)
	sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	stranger := idle(t, api, nil)
	if err := api.NetworkConnect(t.Context(), "fob-"+cfg.Aviary+"-egress", stranger, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Purge(t.Context()); err == nil || !strings.Contains(err.Error(), "network") {
		t.Errorf("Purge says %v, and left a network", err)
	}
	left, err := api.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "fob.aviary="+cfg.Aviary))})
	if err != nil || len(left) > 0 {
		t.Errorf("containers left: %v, %v", left, err)
	}
	if folders, err := filepath.Glob(filepath.Join(cfg.SocketDir, cfg.Aviary+"-*")); err != nil || len(folders) > 0 {
		t.Errorf("folders left: %v, %v", folders, err)
	}
	removeContainer(t, api, stranger)
}

func TestDockerNewSaysWhatToDo(t *testing.T) {
	dockerClient(t)
	dir := shortDir(t)
	for name, c := range map[string]struct {
		change func(*docker.Config)
		want   string
	}{
		"long path":     {func(c *docker.Config) { c.SocketDir = filepath.Join(dir, strings.Repeat("x", 80)) }, "FOB_SOCKETS"},
		"no folder":     {func(c *docker.Config) { c.SocketDir = "/proc/sockets" }, "FOB_SOCKETS"},
		"aviary":        {func(c *docker.Config) { c.Aviary = "a/b" }, "FOB_AVIARY"},
		"runtime":       {func(c *docker.Config) { c.Runtimes = []string{"no-such-runtime"} }, "FOB_RUNTIME"},
		"no base image": {func(c *docker.Config) { c.BaseImage = "" }, "FOB_BASE_IMAGE"},
	} {
		cfg := config("tnew", dir)
		c.change(&cfg)
		e, err := docker.New(t.Context(), cfg)
		if err == nil {
			e.Close()
			t.Errorf("%s: New took it", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: does not name %s", name, err, c.want)
		}
	}
}

// What a dispatcher that was killed in the middle of a creation left.
func TestDockerListClearsWhatIsHalfMade(t *testing.T) {
	api := dockerClient(t)
	e, cfg := open(t)
	const id = "00000000deadbeef"
	created, err := api.ContainerCreate(t.Context(), &container.Config{
		Image: baseImage(), Entrypoint: []string{"sleep", "infinity"},
		Labels: map[string]string{"fob.aviary": cfg.Aviary, "fob.sandbox": id, "fob.lang": "python"},
	}, &container.HostConfig{}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	folders := []string{filepath.Join(cfg.SocketDir, cfg.Aviary+"-"+id), filepath.Join(cfg.SocketDir, cfg.Aviary+"-00000000deadbee0")}
	for _, folder := range folders {
		if err := os.Mkdir(folder, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := e.List(t.Context())
	if err != nil || len(listed) != 1 || listed[0].ID() != id {
		t.Fatalf("listed %v, %v", listed, err)
	}
	select {
	case <-listed[0].Done():
	default:
		t.Error("a container that never ran is not known to be dead")
	}
	if _, err := os.Stat(folders[1]); !os.IsNotExist(err) {
		t.Errorf("the folder without a container: %v", err)
	}
	if err := listed[0].Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ContainerInspect(t.Context(), created.ID); !errdefs.IsNotFound(err) {
		t.Errorf("the container: %v", err)
	}
	if left := traces(t, api, cfg.SocketDir, cfg.Aviary); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
