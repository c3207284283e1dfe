package faas

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Settings are a version's limits, scaling and environment.
type Settings struct {
	Timeout     Duration `json:"timeout"`     // of one call, once it runs
	Memory      Bytes    `json:"memory"`      // of a sandbox, swap included
	CPUs        float64  `json:"cpus"`        // of a sandbox
	Concurrency int      `json:"concurrency"` // calls at a time in one sandbox

	// MaxConcurrency bounds the calls that run at a time in all sandboxes of the
	// function. The live version's value holds for all versions. With 0 no call runs.
	MaxConcurrency int `json:"max_concurrency"`

	TargetUtilization float64  `json:"target_utilization"` // share of concurrency that the scaler aims to use
	MinScale          int      `json:"min_scale"`          // sandboxes kept
	MaxScale          int      `json:"max_scale"`          // sandboxes at most
	MaxCalls          int      `json:"max_calls"`          // before a sandbox is replaced; 0 for no bound
	StableWindow      Duration `json:"stable_window"`      // of lower demand before sandboxes are removed
	IdleTimeout       Duration `json:"idle_timeout"`       // until the last idle sandbox is removed
	PauseAfter        Duration `json:"pause_after"`        // until an idle sandbox is paused; 0 for never
	Queue             int      `json:"queue"`              // calls waiting at most
	QueueTimeout      Duration `json:"queue_timeout"`      // waiting for a slot at most
	StartTimeout      Duration `json:"start_timeout"`      // waiting for the first sandbox at most
	Network           string   `json:"network"`            // as Network.String spells it
	Runtime           string   `json:"runtime"`            // OCI runtime of the sandboxes; empty for the dispatcher's own

	// Public lets anyone call the function without a token. The live version's value
	// holds for all versions.
	Public  bool  `json:"public"`
	Env     Env   `json:"env"`     // plain variables
	Secrets Names `json:"secrets"` // that its sandboxes get

	// CORS says which pages of other sites may call the function. The live version's
	// value holds for all versions.
	CORS Origins `json:"cors"`

	// KeepVersions is how many of the newest versions stay when a new one comes. The
	// live version's value holds.
	KeepVersions int `json:"keep_versions"`

	// Description is for people. It has no effect.
	Description string `json:"description"`
}

// Unlimited is a MaxConcurrency without a limit.
const Unlimited = 1_000_000

// DefaultSettings returns the settings of a version for which none are given.
func DefaultSettings() Settings {
	var s Settings
	for i := range SettingTable {
		SettingTable[i].preset(&s)
	}
	return s
}

// UnmarshalJSON implements json.Unmarshaler. Settings that the text does not have get
// their defaults: a stored record may be older than a setting, whose zero value may be
// a hard limit.
func (s *Settings) UnmarshalJSON(text []byte) error {
	type plain Settings // without this method
	read := plain(DefaultSettings())
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	*s = Settings(read)
	return nil
}

// check returns an error if the settings contradict each other.
func (s *Settings) check() error {
	if s.MinScale > s.MaxScale {
		return Errorf(CodeBadRequest, "min_scale (%d) is above max_scale (%d)", s.MinScale, s.MaxScale)
	}
	if name, both := bothPlainAndSecret(s); both {
		return Errorf(CodeBadRequest, "%s is both in env and in secrets: leave it out of one", name)
	}
	return nil
}

// SettingTable declares every setting of a function, in the order of the fields of
// Settings. To add one, add its field there and its entry here, and run go test
// ./cmd/dispatcher -run TestGenerated -update.
var SettingTable = []Setting[Settings]{
	{
		Name: "timeout", Everyday: true, Doc: "how long a call may run", Example: "5s",
		More:  "It covers the answer up to its last byte. A call that takes longer is answered 504, after its sandbox was stopped with everything that runs in it.",
		Value: duration(func(s *Settings) *Duration { return &s.Timeout }, 30*time.Second, 10*time.Millisecond, time.Hour),
	},
	{
		Name: "memory", Everyday: true, Doc: "memory of a sandbox", Example: "256MB",
		More:  "It includes `/tmp`; there is no swap. A sandbox that needs more dies, and its calls are answered 502. Units are powers of 1024; a plain number is bytes.",
		Value: size(func(s *Settings) *Bytes { return &s.Memory }, 128<<20, 32<<20, 64<<30), // less cannot hold an interpreter
	},
	{
		Name: "cpus", Doc: "processors of a sandbox", Example: "0.5",
		Value: number(func(s *Settings) *float64 { return &s.CPUs }, 1, 0.05, 64),
	},
	{
		Name: "concurrency", Everyday: true, Doc: "calls at a time in one sandbox", Example: "10",
		Value: whole(func(s *Settings) *int { return &s.Concurrency }, 1, 1, 1000),
	},
	{
		Name: "max_concurrency", Doc: "calls at a time in all sandboxes of the function (0: none, and nothing starts)", Example: "100",
		More:  "It counts the calls of all versions; the live version's value holds. More calls wait in line. With 0 the function is off, and every call is answered 429.",
		Value: whole(func(s *Settings) *int { return &s.MaxConcurrency }, Unlimited, 0, Unlimited),
	},
	{
		Name: "target_utilization", Doc: "share of `concurrency` that the scaler aims to use", Example: "0.5",
		More:  "It has no effect when `concurrency` is 1.",
		Value: number(func(s *Settings) *float64 { return &s.TargetUtilization }, 0.8, 0.1, 1),
	},
	{
		Name: "min_scale", Everyday: true, Doc: "sandboxes that are kept even when idle", Example: "1",
		More:  "It must not exceed `max_scale`.",
		Value: whole(func(s *Settings) *int { return &s.MinScale }, 0, 0, 1000),
	},
	{
		Name: "max_scale", Everyday: true, Doc: "sandboxes at most", Example: "20",
		Value: whole(func(s *Settings) *int { return &s.MaxScale }, 10, 1, 1000),
	},
	{
		Name: "max_calls", Doc: "calls that a sandbox takes before it is replaced (0: no bound)", Example: "1000",
		More:  "With 1 every call has a sandbox of its own; keep `min_scale` below `max_scale`, so that the next sandbox is ready.",
		Value: whole(func(s *Settings) *int { return &s.MaxCalls }, 0, 0, 1_000_000),
	},
	{
		Name: "stable_window", Doc: "how long demand must have been lower before sandboxes are removed", Example: "30s",
		Value: duration(func(s *Settings) *Duration { return &s.StableWindow }, time.Minute, time.Second, time.Hour),
	},
	{
		Name: "idle_timeout", Doc: "how long sandboxes are kept once all are idle", Example: "10m",
		Value: duration(func(s *Settings) *Duration { return &s.IdleTimeout }, 5*time.Minute, time.Millisecond, 24*time.Hour),
	},
	{
		Name: "pause_after", Doc: "how long until an idle sandbox is paused (0s: never)", Example: "30s",
		More:  "A paused sandbox needs no processor time, but keeps its memory. The next call resumes it.",
		Value: duration(func(s *Settings) *Duration { return &s.PauseAfter }, 0, 0, 24*time.Hour),
	},
	{
		Name: "queue", Doc: "calls that may wait in line", Example: "100",
		More:  "The next one is answered 429.",
		Value: whole(func(s *Settings) *int { return &s.Queue }, 1000, 0, 100_000),
	},
	{
		Name: "queue_timeout", Doc: "how long a call may wait for a slot", Example: "2s",
		More:  "Then it is answered 503.",
		Value: duration(func(s *Settings) *Duration { return &s.QueueTimeout }, 30*time.Second, time.Millisecond, time.Hour),
	},
	{
		Name: "start_timeout", Doc: "how long a call may wait for a sandbox to start when there is none", Example: "5s",
		More:  "Then it is answered 503. `queue_timeout` counts once there is one.",
		Value: duration(func(s *Settings) *Duration { return &s.StartTimeout }, time.Minute, 10*time.Millisecond, 10*time.Minute),
	},
	{
		Name: "network", Doc: "what its sandboxes can reach", Example: "allow=api.example.com,*.example.org:8443",
		More: "`allow=…` lists up to 50 hosts, which an HTTP proxy reaches. A host is a name, `*.NAME` for all names below it, `*` for any public host, or an IP address; without a port it means " +
			"ports 80 and 443. The operator sets the default (`FOB_NETWORK`) and the most that a function may ask for (`FOB_MAX_NETWORK`).",
		Value: value("string", func(s *Settings) *string { return &s.Network }, NetworkEgress,
			"egress (out, but not to other sandboxes), none, or allow=HOST[:PORT],… (these hosts alone)", `pattern: '^(egress|none|allow=.+)$'`, networkSetting),
	},
	{
		Name: "runtime", Doc: "OCI runtime of its sandboxes", Example: "runsc",
		More: "Empty means the dispatcher's own. The operator lists the others in `FOB_RUNTIMES`.",
		Value: value("string", func(s *Settings) *string { return &s.Runtime }, "",
			"one that the dispatcher offers", `pattern: '^([A-Za-z0-9][A-Za-z0-9_.-]{0,62})?$'`, runtimeSetting),
	},
	{
		Name: "public", Everyday: true, Doc: "whether anyone may call the function, without a token", Example: "true",
		More:  "The live version's value holds for all versions.",
		Value: truth(func(s *Settings) *bool { return &s.Public }),
	},
	{
		Name: "env", Everyday: true, Private: true, Doc: "plain environment variables, A=1,B=2 or a JSON object", Example: "MODE=test",
		More: "Anybody who may see the function sees them, too.",
		Value: value("object", func(s *Settings) *Env { return &s.Env }, "",
			"at most 100 with 32 KB", "additionalProperties: {type: string}\nmaxProperties: 100", parseEnv),
	},
	{
		Name: "secrets", Everyday: true, Doc: "names of secrets that its sandboxes get, A,B", Example: "PAYMENT_KEY",
		More: "A sandbox gets each as an environment variable and as a file in `$FOB_SECRETS`. None may be in `env`, too.",
		Value: value("array", func(s *Settings) *Names { return &s.Secrets }, "",
			"at most 16", "items: {$ref: '#/components/schemas/VariableName'}\nmaxItems: 16", parseNames),
	},
	{
		Name: "cors", Doc: "pages of other sites that may call the function and read its answers", Example: "https://app.example.com,http://localhost:3000",
		More: "The live version's value holds.",
		Value: value("string", func(s *Settings) *Origins { return &s.CORS }, "",
			"empty (none), * (any), or up to 20 origins such as https://app.example.com, with commas between", "", parseOrigins),
	},
	{
		Name: "keep_versions", Doc: "how many of the newest versions are kept", Example: "10",
		More: "Older ones are dropped, at most 40 with each change. Versions that an alias names or a sandbox has loaded stay, and so does the one that was live until then. " +
			"The live version's value holds.",
		Value: whole(func(s *Settings) *int { return &s.KeepVersions }, 50, 1, 1000),
	},
	{
		Name: "description", Doc: "what the function is for, in a sentence or two", Example: "Greets whoever calls it.",
		More: "It is for people. Like every setting it belongs to a version, so a change of it makes a new version.",
		Value: value("string", func(s *Settings) *string { return &s.Description }, "",
			"at most 1000 characters, in one line", "maxLength: 1000", descriptionSetting),
	},
}

// descriptionSetting accepts one line of text.
func descriptionSetting(text string) (string, error) {
	switch {
	case !utf8.ValidString(text):
		return "", errors.New("not UTF-8 text")
	case utf8.RuneCountInString(text) > 1000:
		return "", errors.New("too long")
	case strings.ContainsFunc(text, unicode.IsControl):
		return "", errors.New("it has a line break or another control character")
	}
	return text, nil
}

func networkSetting(text string) (string, error) {
	network, err := ParseNetwork(text)
	return network.String(), err
}

var runtimePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// CheckRuntime returns what is wrong with the name of an OCI runtime, or nil.
func CheckRuntime(name string) error {
	if !runtimePattern.MatchString(name) {
		return errors.New("not a runtime's name, such as runsc")
	}
	return nil
}

func runtimeSetting(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return text, CheckRuntime(text)
}
