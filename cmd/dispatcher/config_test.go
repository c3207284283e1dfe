package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/sandbox"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		words  []string // of the message; none means that all is well
	}{
		{"as it is", func(*Config) {}, nil},
		{"docker everywhere", func(c *Config) { c.Engine, c.Addr = "docker", "0.0.0.0:9999" }, nil},
		{"process on this machine, version 6", func(c *Config) { c.Addr = "[::1]:0" }, nil},
		{"process on localhost", func(c *Config) { c.Addr = "localhost:0" }, nil},
		{"no pool", func(c *Config) { c.Pool = nil }, nil},
		{"an address without a port", func(c *Config) { c.Addr = "127.0.0.1" }, []string{"FOB_ADDR", "127.0.0.1:9999"}},
		{"no address", func(c *Config) { c.Addr = "" }, []string{"FOB_ADDR"}},
		{"process everywhere", func(c *Config) { c.Addr = "0.0.0.0:9999" }, []string{"FOB_ENGINE=process", "isolates nothing", "FOB_ADDR=127.0.0.1:9999", "FOB_ENGINE=docker"}},
		{"process everywhere, unsaid", func(c *Config) { c.Addr = ":9999" }, []string{"FOB_ENGINE=process", "FOB_ADDR"}},
		{"process everywhere, version 6", func(c *Config) { c.Addr = "[::]:9999" }, []string{"FOB_ENGINE=process"}},
		{"process on a name", func(c *Config) { c.Addr = "example.com:9999" }, []string{"FOB_ENGINE=process"}},
		{"an unknown engine", func(c *Config) { c.Engine = "podman" }, []string{"FOB_ENGINE=podman", "docker", "process"}},
		{"a pool of an unknown language", func(c *Config) { c.Pool = map[string]int{"cobol": 1} }, []string{"FOB_POOL", "cobol", "python", "node"}},
		{"a pool of less than none", func(c *Config) { c.Pool = map[string]int{"node": -1} }, []string{"FOB_POOL", "node=-1", "0 to 100"}},
		{"a great pool", func(c *Config) { c.Pool = map[string]int{"node": 101} }, []string{"FOB_POOL", "node=101"}},
		{"a pool that grows for ever", func(c *Config) { c.PoolMax = 101 }, []string{"FOB_POOL_MAX=101", "0 to 100"}},
		{"a pool that shrinks to less than none", func(c *Config) { c.PoolMax = -1 }, []string{"FOB_POOL_MAX=-1"}},
		{"a pool that does not grow", func(c *Config) { c.PoolMax = 0 }, nil},
		{"no connections", func(c *Config) { c.MaxConnections = 0 }, []string{"FOB_MAX_CONNECTIONS=0", "at least 1"}},
		{"no room for eight bodies", func(c *Config) { c.MaxBuffer = 47 << 20 }, []string{"FOB_MAX_BUFFER=47MB", "at least 48MB"}},
		{"room for eight", func(c *Config) { c.MaxBuffer = 48 << 20 }, nil},
		{"host names", func(c *Config) { c.Hosts = []string{"fob.example.com", "*.example.com", "dispatcher"} }, nil},
		{"a host name with a port", func(c *Config) { c.Hosts = []string{"fob.example.com:9999"} }, []string{"FOB_HOSTS", "fob.example.com:9999", "without a port"}},
		{"every host name", func(c *Config) { c.Hosts = []string{"*"} }, []string{"FOB_HOSTS", "*.example.com"}},
		{"a public URL", func(c *Config) { c.PublicURL = "https://fob.example.com:8443/" }, nil},
		{"a public address", func(c *Config) { c.PublicURL = "fob.example.com:8443" }, []string{"FOB_PUBLIC_URL=fob.example.com:8443", "https://fob.example.com"}},
		{"less than no sandboxes", func(c *Config) { c.MaxSandboxes = -1 }, []string{"FOB_MAX_SANDBOXES=-1", "0"}},
		{"memory for less than one sandbox", func(c *Config) { c.MaxMemory = 127 << 20 }, []string{"FOB_MAX_MEMORY=127MB", "128MB", "0"}},
		{"less than no memory", func(c *Config) { c.MaxMemory = -1 }, []string{"FOB_MAX_MEMORY"}},
		{"memory for one sandbox", func(c *Config) { c.MaxSandboxes, c.MaxMemory = 1, 128<<20 }, nil},
		{"no load timeout", func(c *Config) { c.LoadTimeout = 0 }, []string{"FOB_LOAD_TIMEOUT", "10s"}},
		{"a drain timeout in the past", func(c *Config) { c.DrainTimeout = -time.Second }, []string{"FOB_DRAIN_TIMEOUT=-1s", "0s"}},
		{"a hasty takeover", func(c *Config) { c.TakeoverAfter = 999 * time.Millisecond }, []string{"FOB_TAKEOVER_AFTER=999ms", "1s", "0s"}},
		{"a takeover in the past", func(c *Config) { c.TakeoverAfter = -time.Second }, []string{"FOB_TAKEOVER_AFTER=-1s"}},
		{"a quick takeover", func(c *Config) { c.TakeoverAfter = time.Second }, nil},
		{"not to drain", func(c *Config) { c.DrainTimeout = 0 }, nil},
		{"a small body", func(c *Config) { c.MaxBody = 1023 }, []string{"FOB_MAX_BODY=1023B", "1KB", "1GB"}},
		{"a great body", func(c *Config) { c.MaxBody = 1<<30 + 1 }, []string{"FOB_MAX_BODY"}},
		{"networks", func(c *Config) { c.Network, c.MaxNetwork = "allow=a.example.com", "allow=*.example.com,b:22" }, nil},
		{"no network", func(c *Config) { c.Network, c.MaxNetwork = "none", "none" }, nil},
		{"an unknown network", func(c *Config) { c.Network = "host" }, []string{"FOB_NETWORK=host", "none, egress"}},
		{"an unknown most", func(c *Config) { c.MaxNetwork = "allow=" }, []string{"FOB_MAX_NETWORK=allow=", "allow=*"}},
		{"more than the most", func(c *Config) { c.MaxNetwork = "allow=*" }, []string{"FOB_NETWORK=egress", "FOB_MAX_NETWORK=allow=*"}},
		{"private ranges", func(c *Config) { c.PrivateAddresses = []string{"10.0.0.0/8", "10.1.2.3", "fd00::/8"} }, nil},
		{"no range", func(c *Config) { c.PrivateAddresses = []string{"10.0.0.0/8", "db.local"} }, []string{"FOB_PRIVATE_ADDRESSES", `"db.local"`, "10.1.0.0/16"}},
		{"runtimes", func(c *Config) { c.Runtime, c.Runtimes = "runsc", []string{"runc", "kata"} }, nil},
		{"no runtime", func(c *Config) { c.Runtimes = []string{"/bin/sh"} }, []string{"FOB_RUNTIMES", "runsc"}},
		{"no data", func(c *Config) { c.Data = "" }, []string{"FOB_DATA", "folder"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			c.change(&cfg)
			err := cfg.Validate()
			if len(c.words) == 0 && err != nil {
				t.Errorf("refused: %v", err)
			}
			for _, word := range c.words {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("the error is %v, and should mention %q", err, word)
				}
			}
		})
	}
}

func TestValidateMakesPathsAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Data = "data"
	if err := cfg.Validate(); err != nil || cfg.Data != filepath.Join(here, "data") || cfg.Sockets != filepath.Join(here, "data", "sockets") {
		t.Errorf("data is %s, sockets %s, %v", cfg.Data, cfg.Sockets, err)
	}
	cfg.Sockets = "short"
	if err := cfg.Validate(); err != nil || cfg.Sockets != filepath.Join(here, "short") {
		t.Errorf("sockets is %s, %v", cfg.Sockets, err)
	}
}

func TestCaps(t *testing.T) {
	machine := func() (sandbox.Machine, error) { return sandbox.Machine{CPUs: 4, Memory: 10<<30 + 1}, nil }
	for _, c := range []struct {
		cfg       Config
		sandboxes int
		memory    int64
	}{
		{Config{}, 400, 8 << 30},
		{Config{MaxSandboxes: 7}, 7, 8 << 30},
		{Config{MaxMemory: 1 << 30}, 400, 1 << 30},
		{Config{MaxSandboxes: 7, MaxMemory: 1 << 30}, 7, 1 << 30},
	} {
		if sandboxes, memory, err := c.cfg.caps(machine); err != nil || sandboxes != c.sandboxes || memory != c.memory {
			t.Errorf("of %d and %v it makes %d and %d, %v", c.cfg.MaxSandboxes, c.cfg.MaxMemory, sandboxes, memory, err)
		}
	}
	nothing := func() (sandbox.Machine, error) { return sandbox.Machine{}, errors.New("no such file") }
	if _, _, err := (&Config{}).caps(nothing); err == nil || !strings.Contains(err.Error(), "FOB_MAX_MEMORY") {
		t.Errorf("a machine that says nothing: %v", err)
	}
}

func TestBuffers(t *testing.T) {
	for _, c := range []struct {
		machine int64
		cfg     Config
		want    int64
	}{
		{16<<30 + 5, Config{MaxBody: 6 << 20}, 2 << 30},
		{256 << 20, Config{MaxBody: 6 << 20}, 64 << 20},
		{256 << 20, Config{MaxBody: 100 << 20}, 800 << 20},
		{16 << 30, Config{MaxBody: 6 << 20, MaxBuffer: 50 << 20}, 50 << 20},
	} {
		machine := func() (sandbox.Machine, error) { return sandbox.Machine{CPUs: 1, Memory: c.machine}, nil }
		if got, err := c.cfg.buffers(machine); err != nil || got != c.want {
			t.Errorf("with %d bytes of memory and %+v: %d, %v; want %d", c.machine, c.cfg, got, err, c.want)
		}
	}
	nothing := func() (sandbox.Machine, error) { return sandbox.Machine{}, errors.New("no such file") }
	if _, err := (&Config{}).buffers(nothing); err == nil || !strings.Contains(err.Error(), "FOB_MAX_BUFFER") {
		t.Errorf("a machine that says nothing: %v", err)
	}
}

func TestDefaultData(t *testing.T) {
	for _, c := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, map[string]string{"HOME": "/root", "XDG_DATA_HOME": "/x"}, "/var/lib/fob"},
		{1000, map[string]string{"HOME": "/home/ann"}, "/home/ann/.local/share/fob"},
		{1000, map[string]string{"HOME": "/home/ann", "XDG_DATA_HOME": "/data"}, "/data/fob"},
		{1000, map[string]string{"HOME": "/home/ann", "XDG_DATA_HOME": "relative"}, "/home/ann/.local/share/fob"},
	} {
		if got := defaultData(c.uid, func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("defaultData(%d, %v) = %s, want %s", c.uid, c.env, got, c.want)
		}
	}
}

// commandLine is the command line, as main has it.
func commandLine(t *testing.T) *kong.Kong {
	t.Helper()
	k, err := kong.New(newCommands(), kong.Vars{"data": "/var/lib/fob"}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestStrangeSettings(t *testing.T) {
	environ := []string{"FOB_ADDR=127.0.0.1:1", "FOB_ADR=127.0.0.1:1", "PATH=/bin", "FOB_POOL=python=1", "FOB_", "FOB_LOG_LEVEL=debug", "MY_FOB_THING=1", "FOB_ENGINES=docker"}
	if got := strangeSettings(commandLine(t).Model.Leaves(true), environ); !slices.Equal(got, []string{"FOB_", "FOB_ADR", "FOB_ENGINES"}) {
		t.Errorf("strange are %v", got)
	}
	if got := strangeSettings(commandLine(t).Model.Leaves(true), []string{"PATH=/bin", "FOB_DATA=/x"}); len(got) != 0 {
		t.Errorf("strange are %v", got)
	}
}

// The command line says the same as the environment, and wins.
func TestSettingsFromFlagsAndEnvironment(t *testing.T) {
	for name, value := range map[string]string{"FOB_ADDR": "127.0.0.1:1", "FOB_POOL": "python=7,node=0", "FOB_MAX_BODY": "2MB", "FOB_ENGINE": "process", "FOB_DATA": "/data", "FOB_STANDBY": "true"} {
		t.Setenv(name, value)
	}
	var c commands
	k, err := kong.New(&c, kong.Vars{"data": "/var/lib/fob"}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse([]string{"serve", "--addr", "127.0.0.1:2", "--load-timeout", "3s"}); err != nil {
		t.Fatal(err)
	}
	got := c.Serve.Config
	if got.Addr != "127.0.0.1:2" || got.Pool["python"] != 7 || got.Pool["node"] != 0 || got.MaxBody != 2<<20 || got.Engine != "process" ||
		got.Data != "/data" || !got.Standby || got.LoadTimeout != 3*time.Second || got.DrainTimeout != 30*time.Second {
		t.Errorf("the settings are %+v", got)
	}
	t.Setenv("FOB_ADDR", "0.0.0.0:1")
	if _, err := k.Parse([]string{"serve"}); err == nil || !strings.Contains(err.Error(), "FOB_ENGINE=process") {
		t.Errorf("what Validate refuses was taken: %v", err)
	}
}

func TestQuotedSettings(t *testing.T) {
	environ := []string{`FOB_ADDR="127.0.0.1:1"`, "FOB_POOL='python=1'", `FOB_DATA=/a"b`, `FOB_KEY_FILE="`, `PATH="/bin"`, "FOB_HOSTS="}
	if got := quotedSettings(environ); !slices.Equal(got, []string{"FOB_ADDR", "FOB_POOL"}) {
		t.Errorf("quoted are %v", got)
	}
}
