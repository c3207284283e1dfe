package faas

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Settings are a version's limits, scale and environment.
type Settings struct {
	Timeout     Duration `json:"timeout"`     // of one call, once it runs
	Memory      Bytes    `json:"memory"`      // of a sandbox, swap included
	CPUs        float64  `json:"cpus"`        // of a sandbox
	Concurrency int      `json:"concurrency"` // calls at a time in one sandbox

	// MaxConcurrency bounds the calls that run at a time in all sandboxes of
	// the function; the live version's counts. With 0 nothing runs at all.
	MaxConcurrency int `json:"max_concurrency"`

	TargetUtilization float64  `json:"target_utilization"` // share of concurrency that the scaler aims at
	MinScale          int      `json:"min_scale"`          // sandboxes kept
	MaxScale          int      `json:"max_scale"`          // sandboxes at most
	StableWindow      Duration `json:"stable_window"`      // of less demand, until sandboxes go
	IdleTimeout       Duration `json:"idle_timeout"`       // until the last idle sandbox is removed
	PauseAfter        Duration `json:"pause_after"`        // until an idle sandbox is paused; 0 is never
	Queue             int      `json:"queue"`              // calls waiting at most
	QueueTimeout      Duration `json:"queue_timeout"`      // waiting for a slot at most
	StartTimeout      Duration `json:"start_timeout"`      // waiting for the first sandbox at most
	Network           string   `json:"network"`            // as Network.String spells it
	Runtime           string   `json:"runtime"`            // OCI runtime of the sandboxes; empty is the dispatcher's own

	// Public lets anyone call the function, without a token; the live version's
	// counts for all.
	Public  bool  `json:"public"`
	Env     Env   `json:"env"`     // plain variables
	Secrets Names `json:"secrets"` // that its sandboxes get

	// CORS is which pages of other sites may call the function; the live
	// version's counts.
	CORS Origins `json:"cors"`

	// KeepVersions is how many of the newest versions stay when there is a new
	// one; the live version's counts.
	KeepVersions int `json:"keep_versions"`
}

// Unlimited is the MaxConcurrency that limits nothing.
const Unlimited = 1_000_000

// DefaultSettings returns what a version has when nothing is said.
func DefaultSettings() Settings {
	return Settings{
		Timeout:           Duration(30 * time.Second),
		Memory:            128 << 20,
		CPUs:              1,
		Concurrency:       1,
		MaxConcurrency:    Unlimited,
		TargetUtilization: 0.8,
		MinScale:          0,
		MaxScale:          10,
		StableWindow:      Duration(time.Minute),
		IdleTimeout:       Duration(5 * time.Minute),
		PauseAfter:        0,
		Queue:             1000,
		QueueTimeout:      Duration(30 * time.Second),
		StartTimeout:      Duration(time.Minute),
		Network:           NetworkEgress,
		KeepVersions:      50,
	}
}

// UnmarshalJSON implements json.Unmarshaler. What the text is silent on gets
// its default: it may be a record from before there was such a setting, and
// for some of them zero would be a hard limit.
func (s *Settings) UnmarshalJSON(text []byte) error {
	type plain Settings // without this method
	read := plain(DefaultSettings())
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	*s = Settings(read)
	return nil
}

// Setting describes one of the settings, for help texts.
type Setting struct {
	Name string
	Doc  string // its unit and range
	set  func(*Settings, string) error
}

// SettingTable lists every setting a function can be given, in the order of
// the Settings struct.
var SettingTable = []Setting{
	{"timeout", "how long a call may run, 10ms to 1h", duration(func(s *Settings) *Duration { return &s.Timeout }, 10*time.Millisecond, time.Hour)},
	{"memory", "memory of a sandbox, 32MB to 64GB", setMemory},
	{"cpus", "processors of a sandbox, 0.05 to 64", number(func(s *Settings) *float64 { return &s.CPUs }, 0.05, 64)},
	{"concurrency", "calls at a time in one sandbox, 1 to 1000", whole(func(s *Settings) *int { return &s.Concurrency }, 1, 1000)},
	{"max_concurrency", "calls at a time in all sandboxes of the function (0: none, and nothing starts), 0 to 1000000", whole(func(s *Settings) *int { return &s.MaxConcurrency }, 0, Unlimited)},
	{"target_utilization", "share of concurrency that the scaler aims to use, 0.1 to 1", number(func(s *Settings) *float64 { return &s.TargetUtilization }, 0.1, 1)},
	{"min_scale", "sandboxes kept when idle, 0 to 1000", whole(func(s *Settings) *int { return &s.MinScale }, 0, 1000)},
	{"max_scale", "sandboxes at most, 1 to 1000", whole(func(s *Settings) *int { return &s.MaxScale }, 1, 1000)},
	{"stable_window", "how long demand must have been lower before sandboxes go, 1s to 1h", duration(func(s *Settings) *Duration { return &s.StableWindow }, time.Second, time.Hour)},
	{"idle_timeout", "how long the last idle sandbox is kept, 1ms to 24h", duration(func(s *Settings) *Duration { return &s.IdleTimeout }, time.Millisecond, 24*time.Hour)},
	{"pause_after", "how long until an idle sandbox is paused (0s: never), 0s to 24h", duration(func(s *Settings) *Duration { return &s.PauseAfter }, 0, 24*time.Hour)},
	{"queue", "calls that may wait for a sandbox, 0 to 100000", whole(func(s *Settings) *int { return &s.Queue }, 0, 100000)},
	{"queue_timeout", "how long a call may wait for a slot, 1ms to 1h", duration(func(s *Settings) *Duration { return &s.QueueTimeout }, time.Millisecond, time.Hour)},
	{"start_timeout", "how long a call may wait for a sandbox to start when there is none, 10ms to 10m", duration(func(s *Settings) *Duration { return &s.StartTimeout }, 10*time.Millisecond, 10*time.Minute)},
	{"network", "egress (out, but not to other sandboxes), none, or allow=HOST[:PORT],… (these hosts alone)", setNetwork},
	{"runtime", "one that the dispatcher offers", setRuntime},
	{"public", "whether anyone may call the function, without a token, true or false", setPublic},
	{"env", "plain environment variables, A=1,B=2 or a JSON object, at most 100 with 32 KB", setEnv},
	{"secrets", "names of secrets that its sandboxes get, A,B, at most 16", setSecrets},
	{"cors", "empty (none), * (any), or up to 20 origins such as https://app.example.com, with commas between", setCORS},
	{"keep_versions", "newest versions that are kept, 1 to 1000", whole(func(s *Settings) *int { return &s.KeepVersions }, 1, 1000)},
}

// SettingsPatch holds the settings that somebody gave, as text by name.
type SettingsPatch map[string]string

// IsSetting reports whether there is a setting of that name.
func IsSetting(name string) bool {
	return slices.ContainsFunc(SettingTable, func(s Setting) bool { return s.Name == name })
}

// SettingNames returns the names of all settings.
func SettingNames() []string {
	names := make([]string, len(SettingTable))
	for i, s := range SettingTable {
		names[i] = s.Name
	}
	return names
}

// Apply returns base with the patch's settings. What is unknown, no such value
// or out of range is CodeBadRequest.
func (p SettingsPatch) Apply(base Settings) (Settings, error) {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !IsSetting(name) {
			return base, Errorf(CodeBadRequest, "there is no setting %q; there are %s", clip(name, 80), strings.Join(SettingNames(), ", "))
		}
	}
	for _, setting := range SettingTable {
		text, given := p[setting.Name]
		if !given {
			continue
		}
		if err := setting.set(&base, text); err != nil {
			if setting.Name == "env" { // its values are nobody else's business
				return base, Errorf(CodeBadRequest, "env: %v (%s)", err, setting.Doc)
			}
			return base, Errorf(CodeBadRequest, "%s=%s: %v (%s)", setting.Name, clip(text, 80), err, setting.Doc)
		}
	}
	if base.MinScale > base.MaxScale {
		return base, Errorf(CodeBadRequest, "min_scale (%d) is above max_scale (%d)", base.MinScale, base.MaxScale)
	}
	if name, both := bothPlainAndSecret(base); both {
		return base, Errorf(CodeBadRequest, "%s is both in env and in secrets: leave it out of one", name)
	}
	return base, nil
}

var errRange = errors.New("out of range")

func duration(field func(*Settings) *Duration, low, high time.Duration) func(*Settings, string) error {
	return func(s *Settings, text string) error {
		d, err := time.ParseDuration(text)
		if err != nil {
			if plainNumber.MatchString(text) { // of what, the range may tell
				for _, unit := range []string{"s", "ms"} {
					if d, err := time.ParseDuration(text + unit); err == nil && d >= low && d <= high {
						return fmt.Errorf("it has no unit: write %s%s", text, unit)
					}
				}
			}
			return errors.New("not a duration such as 500ms, 30s or 5m")
		}
		if d < low || d > high {
			return errRange
		}
		*field(s) = Duration(d)
		return nil
	}
}

func whole(field func(*Settings) *int, low, high int) func(*Settings, string) error {
	return func(s *Settings, text string) error {
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("not a whole number")
		}
		if n < low || n > high {
			return errRange
		}
		*field(s) = n
		return nil
	}
}

func number(field func(*Settings) *float64, low, high float64) func(*Settings, string) error {
	return func(s *Settings, text string) error {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			// As Kubernetes writes it.
			if n, err := strconv.ParseFloat(strings.TrimSuffix(text, "m"), 64); err == nil && n >= low*1000 && n <= high*1000 {
				return fmt.Errorf("not a number: write %g", n/1000)
			}
			return errors.New("not a number")
		}
		if !(n >= low && n <= high) { // refuses NaN as well
			return errRange
		}
		*field(s) = n
		return nil
	}
}

func setMemory(s *Settings, text string) error {
	var b Bytes
	if err := b.UnmarshalText([]byte(text)); err != nil {
		return err
	}
	// Less than 32 MB does not hold an interpreter.
	if b >= 32 && b <= 64<<10 && plainNumber.MatchString(text) {
		return fmt.Errorf("that is bytes: write %dMB", int64(b))
	}
	if b < 32<<20 || b > 64<<30 {
		return errRange
	}
	s.Memory = b
	return nil
}

// plainNumber is a number without a unit.
var plainNumber = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)?$`)

func setNetwork(s *Settings, text string) error {
	network, err := ParseNetwork(text)
	if err != nil {
		return err
	}
	s.Network = network.String()
	return nil
}

var runtimePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// CheckRuntime says what is wrong with the name of an OCI runtime, or nil.
func CheckRuntime(name string) error {
	if !runtimePattern.MatchString(name) {
		return errors.New("not a runtime's name, such as runsc")
	}
	return nil
}

func setRuntime(s *Settings, text string) error {
	if text != "" {
		if err := CheckRuntime(text); err != nil {
			return err
		}
	}
	s.Runtime = text
	return nil
}

func setPublic(s *Settings, text string) error {
	if text != "true" && text != "false" {
		return errors.New("neither true nor false")
	}
	s.Public = text == "true"
	return nil
}

// Duration is a time.Duration that is text such as "1m30s" in JSON.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Bytes is a number of bytes that is text such as "128MB" in JSON. As with
// Docker, units are powers of 1024 however they are spelled.
type Bytes int64

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, unit := range []struct {
		size Bytes
		name string
	}{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if b >= unit.size && b%unit.size == 0 {
			return fmt.Appendf(nil, "%d%s", b/unit.size, unit.name), nil
		}
	}
	return fmt.Appendf(nil, "%dB", int64(b)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	if size := len(text); size > 0 && text[size-1] == 'i' { // 256Mi, as Kubernetes writes it
		text = append(text[:size:size], 'B')
	}
	n, err := units.RAMInBytes(string(text))
	if err != nil {
		return errors.New("not a size such as 128MB or 1GB")
	}
	*b = Bytes(n)
	return nil
}

// String returns the size as MarshalText writes it.
func (b Bytes) String() string {
	text, _ := b.MarshalText()
	return string(text)
}
