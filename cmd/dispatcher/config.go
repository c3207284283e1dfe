package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/logs"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// Config holds a dispatcher's settings. Each is a flag and a FOB_ environment variable.
type Config struct {
	Addr      string   `group:"Everyday:" env:"FOB_ADDR" default:"127.0.0.1:9999" placeholder:"HOST:PORT" help:"Address to listen on (${default})."`
	Data      string   `group:"Everyday:" env:"FOB_DATA" default:"${data}" placeholder:"FOLDER" help:"Folder where functions are kept (${default})."`
	Sockets   string   `env:"FOB_SOCKETS" placeholder:"FOLDER" help:"Folder for the sandboxes' sockets; its path must be short (sockets in the data folder)."`
	Hosts     []string `group:"Everyday:" env:"FOB_HOSTS" placeholder:"NAME,…" help:"Host names that requests may use, such as *.example.com. IP addresses and localhost always work (none)."`
	PublicURL string   `name:"public-url" group:"Everyday:" env:"FOB_PUBLIC_URL" placeholder:"URL" help:"URL at which clients reach it, for what it prints when it is ready (its address)."`

	TrustedProxies []string `env:"FOB_TRUSTED_PROXIES" sep:"," placeholder:"CIDR,…" help:"Addresses of the proxies in front, whose X-Forwarded-For, -Proto and -Host it believes (none)."`

	Anonymous   bool         `env:"FOB_ANONYMOUS" help:"Listen beyond this machine without any token, because the network itself keeps others out."`
	RateToken   httpapi.Rate `env:"FOB_RATE_TOKEN" placeholder:"N[/BURST]" help:"Requests a second that one token may make (unlimited)."`
	RateAddress httpapi.Rate `env:"FOB_RATE_ADDRESS" placeholder:"N[/BURST]" help:"Requests a second that one address may make (unlimited)."`
	KeyFile     string       `env:"FOB_KEY_FILE" placeholder:"FILE" help:"File with the key that seals secrets (secret.key in the data folder)."`

	Engine    string `group:"Everyday:" env:"FOB_ENGINE" default:"docker" placeholder:"NAME" help:"What makes sandboxes: docker, or process for trials, without any isolation (${default})."`
	Aviary    string `env:"FOB_AVIARY" placeholder:"NAME" help:"Label of this dispatcher's sandboxes (a name minted with the data folder)."`
	BaseImage string `env:"FOB_BASE_IMAGE" default:"debian:trixie-slim" placeholder:"IMAGE" help:"Image that the driver images are built from (${default})."`

	Runtime  string   `env:"FOB_RUNTIME" placeholder:"NAME" help:"OCI runtime of the sandboxes, such as runsc (the engine's own)."`
	Runtimes []string `env:"FOB_RUNTIMES" sep:"," placeholder:"NAME,…" help:"Other OCI runtimes that a function may ask for (none)."`

	Network          string   `env:"FOB_NETWORK" default:"egress" placeholder:"NETWORK" help:"Network of functions that set none, and of blank sandboxes: none, egress or allow=HOST[:PORT],… (${default})."`
	MaxNetwork       string   `env:"FOB_MAX_NETWORK" default:"egress" placeholder:"NETWORK" help:"The most that a function may have: none, allow=HOST[:PORT],…, allow=* or egress (${default})."`
	PrivateAddresses []string `env:"FOB_PRIVATE_ADDRESSES" sep:"," placeholder:"CIDR,…" help:"Private address ranges that functions with network=allow=… may reach (none)."`

	Pool        map[string]int `env:"FOB_POOL" default:"python=2,node=1" mapsep:"," placeholder:"LANG=N,…" help:"Blank sandboxes kept ready at least, by language (python=2,node=1)."`
	PoolMax     int            `env:"FOB_POOL_MAX" default:"8" placeholder:"N" help:"Blank sandboxes kept ready at most, for a language whose pool often runs empty (${default})."`
	LoadTimeout time.Duration  `env:"FOB_LOAD_TIMEOUT" default:"10s" placeholder:"DURATION" help:"How long a function's code may take to load, its imports included (${default})."`
	MaxBody     faas.Bytes     `env:"FOB_MAX_BODY" default:"6MB" placeholder:"SIZE" help:"Largest request or answer that is not streamed (${default})."`

	MaxBuffer      faas.Bytes `env:"FOB_MAX_BUFFER" placeholder:"SIZE" help:"Memory that requests, answers and connections may use together (an eighth of the machine's)."`
	MaxConnections int        `env:"FOB_MAX_CONNECTIONS" default:"10000" placeholder:"N" help:"Clients' connections at a time (${default})."`

	History    faas.Bytes `env:"FOB_HISTORY" default:"256MB" placeholder:"SIZE" help:"Disk space for the history of calls, in the data folder; 0 keeps none (${default})."`
	HistoryAge faas.Age   `env:"FOB_HISTORY_AGE" default:"7d" placeholder:"AGE" help:"How long calls stay in the history; 0 for as long as there is space (${default})."`

	Logs faas.Bytes `env:"FOB_LOGS" default:"512MB" placeholder:"SIZE" help:"Disk space for what functions print, in the data folder; 0 keeps nothing (${default})."`

	MaxSandboxes int        `env:"FOB_MAX_SANDBOXES" placeholder:"N" help:"Most sandboxes at a time, of all functions and the pools (100 for each processor)."`
	MaxMemory    faas.Bytes `group:"Everyday:" env:"FOB_MAX_MEMORY" placeholder:"SIZE" help:"Memory that all sandboxes may use together (80 % of the machine's)."`

	Standby         bool          `group:"Everyday:" env:"FOB_STANDBY" help:"Wait while another dispatcher uses the data folder, and take over when it ends."`
	TakeoverAfter   time.Duration `env:"FOB_TAKEOVER_AFTER" default:"10s" placeholder:"DURATION" help:"On standby, how long an active dispatcher may give no sign of life before it is ended; 0s never ends it (${default})."`
	DrainTimeout    time.Duration `env:"FOB_DRAIN_TIMEOUT" default:"30s" placeholder:"DURATION" help:"How long calls in flight may take to finish when the dispatcher ends (${default})."`
	RemoveSandboxes bool          `env:"FOB_REMOVE_SANDBOXES" help:"Remove all sandboxes when the dispatcher ends, instead of leaving them for the next start."`
}

// Validate checks the settings and says what to change. It also fills in the settings
// that follow from others. Kong calls it too.
func (c *Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("FOB_ADDR=%s is not HOST:PORT, as in 127.0.0.1:9999", c.Addr)
	}
	switch c.Engine {
	case "docker":
	case "process":
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("FOB_ENGINE=process isolates nothing, so it listens on this machine alone: set FOB_ADDR=127.0.0.1:9999, or use FOB_ENGINE=docker")
		}
	default:
		return fmt.Errorf("FOB_ENGINE=%s: there are docker and process", c.Engine)
	}
	for _, name := range c.Hosts {
		if err := httpapi.CheckHost(name); err != nil {
			return fmt.Errorf("FOB_HOSTS: %w", err)
		}
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return fmt.Errorf("FOB_PUBLIC_URL=%s is not a URL like https://fob.example.com", c.PublicURL)
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	for lang, n := range c.Pool {
		if !slices.Contains(drivers.Langs(), lang) {
			return fmt.Errorf("FOB_POOL: there is no driver for %q; there are %s", lang, strings.Join(drivers.Langs(), ", "))
		}
		if n < 0 || n > 100 {
			return fmt.Errorf("FOB_POOL: %s=%d is not from 0 to 100", lang, n)
		}
	}
	switch {
	case c.PoolMax < 0 || c.PoolMax > 100:
		return fmt.Errorf("FOB_POOL_MAX=%d is not from 0 to 100", c.PoolMax)
	case c.MaxConnections < 1:
		return fmt.Errorf("FOB_MAX_CONNECTIONS=%d: give how many connections there may be, at least 1", c.MaxConnections)
	case c.MaxSandboxes < 0:
		return fmt.Errorf("FOB_MAX_SANDBOXES=%d: give how many sandboxes there may be, or 0 to have it follow from the machine", c.MaxSandboxes)
	case c.MaxMemory < 0 || c.MaxMemory > 0 && c.MaxMemory < faas.DefaultSettings().Memory:
		return fmt.Errorf("FOB_MAX_MEMORY=%v: give at least %v, which one sandbox has by default, or 0 to have it follow from the machine", c.MaxMemory, faas.DefaultSettings().Memory)
	case c.LoadTimeout <= 0:
		return fmt.Errorf("FOB_LOAD_TIMEOUT=%v: give a positive duration such as 10s", c.LoadTimeout)
	case c.TakeoverAfter != 0 && c.TakeoverAfter < minTakeoverAfter:
		return fmt.Errorf("FOB_TAKEOVER_AFTER=%v: give at least %v, or 0s never to end an active dispatcher", c.TakeoverAfter, minTakeoverAfter)
	case c.DrainTimeout < 0:
		return fmt.Errorf("FOB_DRAIN_TIMEOUT=%v: give a duration such as 30s, or 0s not to wait", c.DrainTimeout)
	case c.MaxBody < 1<<10 || c.MaxBody > 1<<30:
		return fmt.Errorf("FOB_MAX_BODY=%v is not from 1KB to 1GB", c.MaxBody)
	case c.MaxBuffer != 0 && c.MaxBuffer < minBuffers*c.MaxBody:
		return fmt.Errorf("FOB_MAX_BUFFER=%v: give at least %v, %d times FOB_MAX_BODY, or 0 to have it follow from the machine", c.MaxBuffer, minBuffers*c.MaxBody, minBuffers)
	case c.History != 0 && (c.History < minHistory || c.History > 1<<40):
		return fmt.Errorf("FOB_HISTORY=%v: give from %v to 1TB, or 0 to keep no history of calls", c.History, minHistory)
	case c.Logs != 0 && (c.Logs < logs.MinBytes || c.Logs > 1<<40):
		return fmt.Errorf("FOB_LOGS=%v: give from %v to 1TB, or 0 to keep no logs of functions", c.Logs, faas.Bytes(logs.MinBytes))
	case c.HistoryAge < 0:
		return fmt.Errorf("FOB_HISTORY_AGE=%v: give an age such as 7d or 12h, or 0 to keep calls for as long as there is space", c.HistoryAge)
	case c.Data == "":
		return errors.New("FOB_DATA is empty: give a folder")
	}
	for _, runtime := range c.runtimes() {
		if err := faas.CheckRuntime(runtime); err != nil {
			return fmt.Errorf("FOB_RUNTIME and FOB_RUNTIMES: %q: %w", runtime, err)
		}
	}
	if _, _, _, err := c.networks(); err != nil {
		return err
	}
	if _, err := c.trustedProxies(); err != nil {
		return err
	}
	// Sockets and mounts need paths that do not depend on the working directory.
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return fmt.Errorf("FOB_DATA: %w", err)
	}
	if c.Sockets == "" {
		c.Sockets = filepath.Join(c.Data, socketsName)
	}
	if c.Sockets, err = filepath.Abs(c.Sockets); err != nil {
		return fmt.Errorf("FOB_SOCKETS: %w", err)
	}
	if c.KeyFile == "" {
		c.KeyFile = filepath.Join(c.Data, secretKeyName)
	}
	if c.KeyFile, err = filepath.Abs(c.KeyFile); err != nil {
		return fmt.Errorf("FOB_KEY_FILE: %w", err)
	}
	return nil
}

// runtimes returns every OCI runtime that the settings name.
func (c *Config) runtimes() []string {
	if c.Runtime == "" {
		return c.Runtimes
	}
	return append([]string{c.Runtime}, c.Runtimes...)
}

// networks returns the network of functions that do not set one, the widest network
// that a function may have, and the private ranges that functions with a list of hosts
// may reach.
func (c *Config) networks() (network, most faas.Network, private []netip.Prefix, err error) {
	if network, err = faas.ParseNetwork(c.Network); err != nil {
		return network, most, nil, fmt.Errorf("FOB_NETWORK=%s: %w; give none, egress or allow=HOST[:PORT],…", c.Network, err)
	}
	if most, err = faas.ParseNetwork(c.MaxNetwork); err != nil {
		return network, most, nil, fmt.Errorf("FOB_MAX_NETWORK=%s: %w; give none, allow=HOST[:PORT],…, allow=* or egress", c.MaxNetwork, err)
	}
	if !most.Covers(network) {
		return network, most, nil, fmt.Errorf("FOB_NETWORK=%v is more than FOB_MAX_NETWORK=%v: the network that functions have by default must be allowed; set FOB_NETWORK=%v", network, most, most)
	}
	private, err = parseRanges("FOB_PRIVATE_ADDRESSES", c.PrivateAddresses)
	return network, most, private, err
}

// trustedProxies returns the addresses whose word about the client is taken.
func (c *Config) trustedProxies() ([]netip.Prefix, error) {
	return parseRanges("FOB_TRUSTED_PROXIES", c.TrustedProxies)
}

// parseRanges reads a setting that lists address ranges and single addresses.
func parseRanges(setting string, texts []string) (ranges []netip.Prefix, err error) {
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			addr = addr.Unmap()
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a range like 10.1.0.0/16 or 10.1.2.3/32", setting, text)
		}
		ranges = append(ranges, prefix)
	}
	return ranges, nil
}

// The shares of the machine that are used unless settings say otherwise.
const (
	sandboxesPerCPU = 100
	memoryShare     = 0.8
)

// caps returns how many sandboxes there may be, and how many bytes of memory they may
// use together. What the settings leave open follows from the machine.
func (c *Config) caps(machine func() (sandbox.Machine, error)) (sandboxes int, memory int64, err error) {
	sandboxes, memory = c.MaxSandboxes, int64(c.MaxMemory)
	if sandboxes > 0 && memory > 0 {
		return sandboxes, memory, nil
	}
	m, err := machine()
	if err != nil {
		return 0, 0, fmt.Errorf("%w; set FOB_MAX_SANDBOXES and FOB_MAX_MEMORY", err)
	}
	if sandboxes == 0 {
		sandboxes = sandboxesPerCPU * m.CPUs
	}
	if memory == 0 {
		memory = int64(memoryShare*float64(m.Memory)) >> 20 << 20 // whole MB are easier to read
	}
	return sandboxes, memory, nil
}

// minHistory is the least space in which a history of calls is of use.
const minHistory faas.Bytes = 4 << 20

// minBuffers is how many bodies of FOB_MAX_BODY the budget must hold. A registration
// takes as much as five, and large bodies get at most three quarters of the budget.
const minBuffers = 8

// bufferShare is the default share of this process's memory that bodies, answers and
// connections may use, and leastBuffer the least that they get.
const (
	bufferShare = 8
	leastBuffer = 64 << 20
)

// buffers returns how many bytes requests, answers and connections may use.
func (c *Config) buffers(machine func() (sandbox.Machine, error)) (int64, error) {
	if c.MaxBuffer > 0 {
		return int64(c.MaxBuffer), nil
	}
	m, err := machine()
	if err != nil {
		return 0, fmt.Errorf("%w; set FOB_MAX_BUFFER", err)
	}
	return max(m.Memory/bufferShare>>20<<20, leastBuffer, minBuffers*int64(c.MaxBody)), nil
}

// defaultData returns the default data folder: the system's place for root, the user's
// own for others (XDG Base Directory Specification).
func defaultData(uid int, getenv func(string) string) string {
	if uid == 0 {
		return "/var/lib/fob"
	}
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "fob")
	}
	return filepath.Join(getenv("HOME"), ".local", "share", "fob")
}
