package docker_test

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	dockernet "github.com/docker/docker/api/types/network"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// The design's "Sandbox, by default", as docker inspect shows it.
func TestDockerInspectShowsEverySetting(t *testing.T) {
	api := dockerClient(t)
	e, cfg := open(t)
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	c := inspect(t, api, inst)
	host := c.HostConfig
	name := cfg.Aviary + "-" + inst.ID()
	network, err := api.NetworkInspect(t.Context(), "fob-"+cfg.Aviary+"-egress", dockernet.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]any{
		"user":            {c.Config.User, "65532:65532"},
		"host name":       {c.Config.Hostname, inst.ID()},
		"name":            {c.Name, "/fob-" + name},
		"socket":          {environment(c, "FOB_SOCKET"), "/run/fob/fob.sock"},
		"home":            {environment(c, "HOME"), "/tmp"},
		"token's length":  {len(environment(c, "FOB_TOKEN")), 64},
		"label aviary":    {c.Config.Labels["fob.aviary"], cfg.Aviary},
		"label sandbox":   {c.Config.Labels["fob.sandbox"], inst.ID()},
		"label lang":      {c.Config.Labels["fob.lang"], "python"},
		"read-only root":  {host.ReadonlyRootfs, true},
		"capabilities":    {strings.Join(host.CapDrop, ","), "ALL"},
		"added":           {len(host.CapAdd), 0},
		"privileged":      {host.Privileged, false},
		"memory":          {host.Memory, int64(128 << 20)},
		"memory and swap": {host.MemorySwap, int64(128 << 20)},
		"processors":      {host.NanoCPUs, int64(1e9)},
		"pids":            {*host.PidsLimit, int64(64)},
		"OOM killer":      {host.OomKillDisable != nil && *host.OomKillDisable, false},
		"init":            {host.Init != nil && *host.Init, true},
		"IPC":             {host.IpcMode, container.IPCModePrivate},
		"PID namespace":   {host.PidMode, container.PidMode("")},
		"network":         {host.NetworkMode, container.NetworkMode(network.ID)},
		"published ports": {len(host.PortBindings) > 0 || host.PublishAllPorts, false},
		"restart":         {host.RestartPolicy.Name, container.RestartPolicyDisabled},
		"auto-remove":     {host.AutoRemove, false},
		"log driver":      {host.LogConfig.Type, "json-file"},
		"log options":     {host.LogConfig.Config, map[string]string{"max-size": "1m", "max-file": "2", "mode": "non-blocking"}},
		"/tmp":            {host.Tmpfs["/tmp"], "rw,noexec,nosuid,nodev,mode=1777,size=64m,nr_inodes=16384"},
		"/dev/shm":        {strings.HasPrefix(host.Tmpfs["/dev/shm"], "ro,"), true},
		"/dev/mqueue":     {strings.HasPrefix(host.Tmpfs["/dev/mqueue"], "ro,"), true},
		"/run/secrets":    {host.Tmpfs["/run/secrets"], "rw,noexec,nosuid,nodev,mode=0700,size=1m,uid=65532,gid=65532"},
		"secrets":         {environment(c, "FOB_SECRETS"), "/run/secrets"},
		"other tmpfs":     {len(host.Tmpfs), 4},
		"binds":           {len(host.Binds), 0},
		"mounts":          {len(host.Mounts), 1},
		"mount":           {host.Mounts[0].Source + ":" + host.Mounts[0].Target, filepath.Join(cfg.SocketDir, name) + ":/run/fob"},
		"devices":         {len(host.Devices), 0},
	}
	for what, pair := range want {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
	ulimits := map[string]int64{}
	for _, u := range host.Ulimits {
		if u.Soft != u.Hard {
			t.Errorf("ulimit %s can be raised", u.Name)
		}
		ulimits[u.Name] = u.Hard
	}
	if !reflect.DeepEqual(ulimits, map[string]int64{"nofile": 1024, "core": 1}) {
		t.Errorf("ulimits are %v", ulimits)
	}
	for _, opt := range host.SecurityOpt {
		if opt != "no-new-privileges:true" && opt != "no-new-privileges" {
			t.Errorf("security option %s: nothing may weaken seccomp or AppArmor", opt)
		}
	}
	if len(host.SecurityOpt) == 0 {
		t.Error("new privileges can be had")
	}

	if err := inst.Resize(t.Context(), sandbox.Limits{Memory: 256 << 20, CPUs: 0.5, Pids: 100}); err != nil {
		t.Fatal(err)
	}
	host = inspect(t, api, inst).HostConfig
	if host.Memory != 256<<20 || host.MemorySwap != 256<<20 || host.NanoCPUs != 5e8 || *host.PidsLimit != 100 {
		t.Errorf("after Resize: memory %d, with swap %d, processors %d, pids %d", host.Memory, host.MemorySwap, host.NanoCPUs, *host.PidsLimit)
	}
}

// What the kernel says from inside, whatever docker inspect does.
func TestDockerKernelHoldsTheLimits(t *testing.T) {
	e, _ := open(t)
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, `
import os, resource
def callme():
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
            "caps": [status[k].strip() for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
            "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1], "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
            "init": os.getpid() != 1}
`)
	var got map[string]any
	sandboxtest.Call(t, inst, nil, &got)
	none := "0000000000000000"
	want := map[string]any{
		"uid": 65532.0, "gid": 65532.0, "groups": got["groups"], "caps": []any{none, none, none, none, none},
		"no_new_privs": "1", "seccomp": "2", "nofile": 1024.0, "core": 1.0, "init": true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("inside it is %v, want %v", got, want)
	}
	for _, group := range got["groups"].([]any) {
		if group != 65532.0 {
			t.Errorf("it is in group %v", group)
		}
	}
}

// probe tries to write everywhere, and looks for sockets. In /proc, the
// processes' own entries are no place to keep anything, nor is pressure, where
// the kernel lets anybody open files to be told of it.
const probe = `
import os, stat
def callme():
    writable, sockets = [], []
    for folder, names, files in os.walk("/"):
        if folder == "/proc":
            names[:] = [n for n in names if not n.isdigit() and n not in ("self", "thread-self", "pressure")]
        path = os.path.join(folder, "fob-probe")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            os.unlink(path)
            writable.append(folder)
        except OSError:
            pass
        for attempt in (lambda: os.mkdir(path), lambda: os.symlink("x", path), lambda: os.mkfifo(path)):
            try:
                attempt()
                writable.append(path)
            except OSError:
                pass
        for name in files:
            path = os.path.join(folder, name)
            try:
                mode = os.lstat(path).st_mode
                if stat.S_ISSOCK(mode):
                    sockets.append(path)
                if stat.S_ISREG(mode):
                    os.close(os.open(path, os.O_WRONLY))
                    writable.append(path)
            except OSError:
                pass
    for attempt in (lambda: os.unlink("/run/fob/fob.sock"), lambda: os.chmod("/run/fob", 0o777),
                    lambda: os.rename("/run/fob/fob.sock", "/run/fob/x"), lambda: os.rename("/run/fob/fob.sock", "/tmp/x")):
        try:
            attempt()
            writable.append("the socket folder")
        except OSError:
            pass
    return {"writable": sorted(set(w for w in writable if w.split("/")[1] != "tmp" and not w.startswith("/run/secrets"))), "tmp": "/tmp" in writable, "sockets": sockets}
`

func TestDockerProbeFindsNoWayOut(t *testing.T) {
	e, cfg := open(t)
	other := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, probe)
	var found struct {
		Writable, Sockets []string
		Tmp               bool
	}
	sandboxtest.Call(t, inst, nil, &found)
	if len(found.Writable) > 0 {
		t.Errorf("besides /tmp and the folder of its secrets it can write to %q", found.Writable)
	}
	if !found.Tmp {
		t.Error("it cannot write to /tmp")
	}
	if !reflect.DeepEqual(found.Sockets, []string{"/run/fob/fob.sock"}) {
		t.Errorf("it finds the sockets %q, want its own alone", found.Sockets)
	}
	// From outside, too: only we get at the folders.
	if info, err := os.Stat(cfg.SocketDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the sockets' folder: %v, %v", info.Mode(), err)
	}
	for _, i := range []sandbox.Instance{inst, other} {
		if info, err := os.Stat(filepath.Join(cfg.SocketDir, cfg.Aviary+"-"+i.ID())); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("a sandbox's folder: %v, %v", info.Mode(), err)
		}
	}
	if state := sandboxtest.State(t, other); state != "blank" {
		t.Errorf("the other sandbox is %q", state)
	}
}

// A sandbox that an engine value left half-made has its folder open; nobody's
// code may run like that.
func TestDockerAdoptionSealsTheFolder(t *testing.T) {
	e, cfg := open(t)
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	folder := filepath.Join(cfg.SocketDir, cfg.Aviary+"-"+inst.ID())
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	second, _ := open(t, func(c *docker.Config) { *c = cfg })
	listed, err := second.List(t.Context())
	if err != nil || len(listed) != 1 {
		t.Fatalf("List: %v, %v", listed, err)
	}
	if state := sandboxtest.State(t, listed[0]); state != "blank" {
		t.Errorf("it is %q", state)
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
}

func TestDockerOutOfMemory(t *testing.T) {
	e, _ := open(t)
	hog := "def callme():\n    hoard = []\n    while True:\n        hoard.append(bytearray(1 << 20))\n"
	want := sandbox.Exit{Code: 137, OutOfMem: true}
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, hog)
	if exit := sandboxtest.End(t, inst); exit != want {
		t.Errorf("Exit is %+v, want %+v", exit, want)
	}
	// A child's end for want of memory is not the sandbox's.
	inst = sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, `
import os, subprocess, sys
def callme():
    code = "open('/proc/self/oom_score_adj', 'w').write('1000')\nhoard = []\nwhile True: hoard.append(bytearray(1 << 20))"
    subprocess.run([sys.executable, "-c", code])
    os._exit(4)
`)
	if exit := sandboxtest.End(t, inst); exit != (sandbox.Exit{Code: 4}) {
		t.Errorf("Exit is %+v, want status 4 and no more", exit)
	}
}

func TestDockerNetworkNone(t *testing.T) {
	e, _ := open(t)
	spec := sandboxtest.Spec("python")
	spec.Network = "none"
	inst := sandboxtest.Create(t, e, spec)
	sandboxtest.Load(t, inst, "import os\ndef callme():\n    return sorted(os.listdir('/sys/class/net'))\n")
	var interfaces []string
	if sandboxtest.Call(t, inst, nil, &interfaces); !reflect.DeepEqual(interfaces, []string{"lo"}) {
		t.Errorf("interfaces are %q, want lo alone", interfaces)
	}
	if host, port := inst.Addr(); host != inst.ID() || port != 8080 {
		t.Errorf("address is %s:%d, want the host name and 8080", host, port)
	}
	listed, err := e.List(t.Context())
	if err != nil || len(listed) != 1 || listed[0].Spec() != spec {
		t.Errorf("listed %v, %v", listed, err)
	}
	spec.Network = "bridge"
	if _, err := e.Create(t.Context(), spec); err == nil {
		t.Error("it took a network that there is not")
	}
}

func TestDockerEgressKeepsSandboxesApart(t *testing.T) {
	e, _ := open(t)
	target := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	// The driver is there, so silence is the network's doing.
	host, _ := target.Addr()
	conn, err := sandboxtest.TCP(target)(t.Context())
	if err != nil {
		t.Fatalf("from this machine: %v", err)
	}
	conn.Close()
	sandboxtest.Load(t, inst, `
import socket
def callme(host):
    routes = [line.split()[1] for line in open("/proc/net/route").read().splitlines()[1:]]
    try:
        socket.create_connection((host, 8080), timeout=2).close()
        return ["reached", routes]
    except OSError as e:
        return ["not reached", routes]
`)
	var got []any
	sandboxtest.Call(t, inst, map[string]any{"host": host}, &got)
	if got[0] != "not reached" {
		t.Errorf("%s: one sandbox reached the other", net.JoinHostPort(host, "8080"))
	}
	if !slices.Contains(got[1].([]any), any("00000000")) {
		t.Errorf("routes %v: there is none to the world", got[1])
	}
}

// Somebody prunes networks, or images, while the dispatcher runs.
func TestDockerSurvivesLossOfItsNetwork(t *testing.T) {
	api := dockerClient(t)
	e, cfg := open(t)
	for range 2 {
		inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
		if err := inst.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := api.NetworkRemove(t.Context(), "fob-"+cfg.Aviary+"-egress"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDockerRefusesAStrangersNetwork(t *testing.T) {
	api := dockerClient(t)
	e, cfg := open(t)
	name := "fob-" + cfg.Aviary + "-egress"
	if _, err := api.NetworkCreate(t.Context(), name, dockernet.CreateOptions{Driver: "bridge"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNetwork(t, api, name) })
	if _, err := e.Create(t.Context(), sandboxtest.Spec("python")); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("Create: %v, want an error that names the network", err)
	}
	if err := e.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := api.NetworkInspect(t.Context(), name, dockernet.InspectOptions{}); err != nil {
		t.Errorf("after Purge the stranger's network: %v", err)
	}
}

// The user that code runs as has a name and a home, as programs expect.
func TestDockerUserHasAName(t *testing.T) {
	e, _ := open(t)
	for lang, code := range map[string]string{
		"python": "import getpass, grp, os, pwd\ndef callme(): return [getpass.getuser(), os.path.expanduser('~'), pwd.getpwuid(os.getuid()).pw_dir, grp.getgrgid(os.getgid()).gr_name]\n",
		"node":   "const os = require('os'); exports.callme = () => { const u = os.userInfo(); return [u.username, os.homedir(), u.homedir, u.username] }",
	} {
		inst := sandboxtest.Create(t, e, sandboxtest.Spec(lang))
		sandboxtest.Load(t, inst, code)
		var got []string
		sandboxtest.Call(t, inst, nil, &got)
		if want := []string{"sandbox-65532", "/tmp", "/tmp", "sandbox-65532"}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", lang, got, want)
		}
	}
}
