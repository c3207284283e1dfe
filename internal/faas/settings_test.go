package faas

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaultSettings(t *testing.T) {
	got, err := texts{}.Apply(DefaultSettings())
	if err != nil || got != DefaultSettings() {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = texts(nil).Apply(DefaultSettings())
	if err != nil || got != DefaultSettings() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		field   func(Settings) any
		good    map[string]any // text → value
		refused string         // separated by |
	}{
		"timeout": {
			func(s Settings) any { return time.Duration(s.Timeout) },
			map[string]any{"10ms": 10 * time.Millisecond, "1h": time.Hour, "30s": 30 * time.Second, "1m30s": 90 * time.Second, "0.5s": 500 * time.Millisecond},
			"|0|0s|9ms|9.999ms|-1|-1s|30|1h1ns|3601s|1d|soon|99999999999h|30 s|∞|1s\x00",
		},
		"memory": {
			func(s Settings) any { return s.Memory },
			map[string]any{"32MB": Bytes(32 << 20), "64GB": Bytes(64 << 30), "128mb": Bytes(128 << 20), "1g": Bytes(1 << 30), "33554432": Bytes(32 << 20), "256MiB": Bytes(256 << 20), "1.5GB": Bytes(3 << 29)},
			"|0|1|1MB|33554431|-1|-128MB|65GB|68719476737|1e30|99999999999999999999GB|1PB|lots|NaN|Inf|128 M B|MB",
		},
		"cpus": {
			func(s Settings) any { return s.CPUs },
			map[string]any{"0.05": 0.05, "64": 64.0, "0.5": 0.5, "1": 1.0, "2e0": 2.0},
			"|0|0.049|-1|64.1|65|NaN|Inf|-Inf|1e400|half|1,5|1 ",
		},
		"concurrency": {
			func(s Settings) any { return s.Concurrency },
			map[string]any{"1": 1, "1000": 1000, "7": 7},
			"|0|-1|1001|1.5|1e2|x|99999999999999999999| 1|0x10",
		},
		"max_concurrency": {
			func(s Settings) any { return s.MaxConcurrency },
			map[string]any{"0": 0, "1": 1, "1000000": Unlimited},
			"|-1|1000001|1e3|x|0.5|none",
		},
		"target_utilization": {
			func(s Settings) any { return s.TargetUtilization },
			map[string]any{"0.1": 0.1, "1": 1.0, "0.75": 0.75},
			"|0|0.09|1.01|-0.5|80|80%|NaN|Inf|x",
		},
		"min_scale": {
			func(s Settings) any { return s.MinScale },
			map[string]any{"0": 0, "10": 10},
			"|-1|1001|11|x|0.5", // 11 is above the default max_scale
		},
		"max_scale": {
			func(s Settings) any { return s.MaxScale },
			map[string]any{"1": 1, "1000": 1000},
			"|0|-1|1001|x|0.5",
		},
		"max_calls": {
			func(s Settings) any { return s.MaxCalls },
			map[string]any{"0": 0, "1": 1, "1000000": 1_000_000},
			"|-1|1000001|x|0.5|none",
		},
		"stable_window": {
			func(s Settings) any { return time.Duration(s.StableWindow) },
			map[string]any{"1s": time.Second, "1h": time.Hour, "90s": 90 * time.Second},
			"|0|0s|999ms|-1s|1h1ns|60|x",
		},
		"pause_after": {
			func(s Settings) any { return time.Duration(s.PauseAfter) },
			map[string]any{"0": time.Duration(0), "0s": time.Duration(0), "1ms": time.Millisecond, "24h": 24 * time.Hour},
			"|-1s|24h1ns|60|never",
		},
		"start_timeout": {
			func(s Settings) any { return time.Duration(s.StartTimeout) },
			map[string]any{"10ms": 10 * time.Millisecond, "10m": 10 * time.Minute, "5s": 5 * time.Second},
			"|0|0s|9ms|-1s|10m1ns|60|x",
		},
		"idle_timeout": {
			func(s Settings) any { return time.Duration(s.IdleTimeout) },
			map[string]any{"1ms": time.Millisecond, "24h": 24 * time.Hour, "5m": 5 * time.Minute},
			"|0|0s|999us|-1s|24h1ns|60|x",
		},
		"queue": {
			func(s Settings) any { return s.Queue },
			map[string]any{"0": 0, "100000": 100000, "7": 7},
			"|-1|100001|x|0.5",
		},
		"queue_timeout": {
			func(s Settings) any { return time.Duration(s.QueueTimeout) },
			map[string]any{"1ms": time.Millisecond, "1h": time.Hour, "5s": 5 * time.Second},
			"|0|0s|999us|-1s|1h1ns|60|x",
		},
		"description": {
			func(s Settings) any { return s.Description },
			map[string]any{"": "", "Greets whoever calls it.": "Greets whoever calls it.", strings.Repeat("ß", 1000): strings.Repeat("ß", 1000)},
			strings.Repeat("x", 1001) + "|two\nlines|a\ttab|\x00|\x1b[31m|\xff",
		},
		"network": {
			func(s Settings) any { return s.Network },
			map[string]any{
				"egress": NetworkEgress, "none": NetworkNone, "allow=Example.COM.,example.com": "allow=example.com",
			},
			"|host|bridge|None|EGRESS|none |allow|allow=|allow=a,,b|allow=a:0",
		},
		"runtime": {
			func(s Settings) any { return s.Runtime },
			map[string]any{"": "", "runsc": "runsc", "io.containerd.runsc.v1": "io.containerd.runsc.v1"},
			"-x|a b|/bin/sh|runsc\n|--privileged",
		},
		"public": {
			func(s Settings) any { return s.Public },
			map[string]any{"true": true, "false": false},
			"|1|0|yes|no|True|TRUE| true|null",
		},
		"env": {
			func(s Settings) any { return s.Env },
			map[string]any{
				"": Env(""), "{}": Env(""), "A=1": Env(`{"A":"1"}`), "b=x=y,A=": Env(`{"A":"","b":"x=y"}`),
				` {"A": "1,2", "_": "\u00e9<"}`:      Env(`{"A":"1,2","_":"é\u003c"}`),
				manyVariables(100):                   Env(manyVariables(100)),
				"A=" + strings.Repeat("x", 32<<10-1): Env(`{"A":"` + strings.Repeat("x", 32<<10-1) + `"}`),
			},
			"A|A=1,|=1|A=1,A=2|1A=1|A B=1|A-B=1|FOB_X=1|LD_PRELOAD=x|PYTHONPATH=x|NODE_OPTIONS=x|PATH=x|A=\x00|A=\xff|{\"A\"|{\"A\":1}|{\"A\":null}|" +
				`{"A":{"B":"1"}}|{"A":"1","A":"2"}|{} x|` + strings.Repeat("A", 65) + "=1|" + manyVariables(101) + "|A=" + strings.Repeat("x", 32<<10),
		},
		"secrets": {
			func(s Settings) any { return s.Secrets },
			map[string]any{
				"": Names(""), "[]": Names(""), "B,A,B": Names("A,B"), ` ["B", "A"]`: Names("A,B"), "_a1": Names("_a1"),
				"A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P": Names("A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P"),
			},
			"A,|,| A|a-b|1A|FOB_X|LD_PRELOAD|PYTHONHOME|NODE_OPTIONS|PATH|[1]|[\"A\"|{}|" + `["A,B"]|` + strings.Repeat("A", 65) + "|A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q",
		},
		"cors": {
			func(s Settings) any { return s.CORS },
			map[string]any{
				"": Origins(""), " ": Origins(""), "*": AnyOrigin, "https://app.example.com": Origins("https://app.example.com"),
				" HTTPS://App.Example.com:443 , http://localhost:3000,https://app.example.com": Origins("https://app.example.com,http://localhost:3000"),
				"http://[2001:DB8:0::1]:80":                  Origins("http://[2001:db8::1]"),
				"http://127.0.0.1:08080":                     Origins("http://127.0.0.1:8080"),
				strings.Repeat("http://a,", 20) + "http://a": Origins("http://a"),
			},
			"null|app.example.com|https://app.example.com/|https://app.example.com/x|https://*.example.com|https://|https://a b|https://a@b|https://a:|https://a:65536|" +
				"https://a:x|https://a?b|https://a#b|ftp://a|https://a,*|https://a,|,|https://ä.example|https://::1|https://[::1%25eth0]|https://[127.0.0.1]|https://a..b|" +
				"https://-a|https://" + strings.Repeat("a", 64) + "|https://a;https://b|https://a https://b|https://a%2eb|https://a\r\nb|" + manyOrigins(21),
		},
	} {
		if FindSetting(name) == nil {
			t.Errorf("there is no setting %s", name)
		}
		for text, want := range c.good {
			got, err := texts{name: text}.Apply(DefaultSettings())
			if err != nil || c.field(got) != want {
				t.Errorf("%s=%s: got %v, %v", name, text, c.field(got), err)
			}
		}
		for _, text := range strings.Split(c.refused, "|") {
			got, err := texts{name: text}.Apply(DefaultSettings())
			if CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%q: got %v, %v", name, text, c.field(got), err)
			}
		}
	}
}

// manyVariables is an env of so many.
func manyVariables(n int) string {
	variables := map[string]string{}
	for i := range n {
		variables[fmt.Sprintf("V%03d", i)] = "x"
	}
	text, _ := json.Marshal(variables)
	return string(text)
}

// A message about env tells no value, for that may be meant to be a secret.
func TestEnvErrorsTellNoValue(t *testing.T) {
	for _, text := range []string{"A=hunter2,A=hunter2", "PATH=hunter2", `{"A":"hunter2"`, "A=hunter2\x00", "A=hunter2,B", `{"A":["hunter2"]}`} {
		_, err := texts{"env": text}.Apply(DefaultSettings())
		if CodeOf(err) != CodeBadRequest || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("env=%q: %v", text, err)
		}
	}
}

func TestSecretIsFor(t *testing.T) {
	fn := &Function{ID: "3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b", Name: "hello"}
	nameless := &Function{ID: "7c9e6679-7425-40de-944b-e07fc1f90ae7"}
	for _, c := range []struct {
		functions []string
		fn        *Function
		may, only bool
	}{
		{nil, fn, true, false},
		{[]string{"hello"}, fn, true, true},
		{[]string{fn.ID}, fn, true, true},
		{[]string{"total"}, fn, false, false},
		{[]string{"hello"}, nameless, false, false},
		{nil, nameless, true, false},
	} {
		s := &Secret{Functions: c.functions}
		if s.For(c.fn) != c.may || s.ForOnly(c.fn) != c.only {
			t.Errorf("%v for %v: %v, %v", c.functions, c.fn.Name, s.For(c.fn), s.ForOnly(c.fn))
		}
	}
}

func manyOrigins(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("https://a%d.example", i))
	}
	return strings.Join(all, ",")
}

// TestSettingTableIsComplete: every field of Settings can be set, by its name
// in JSON, and in the order of the table.
func TestSettingTableIsComplete(t *testing.T) {
	fields := reflect.TypeFor[Settings]()
	if fields.NumField() != len(SettingTable) {
		t.Fatalf("Settings has %d fields, and the table %d", fields.NumField(), len(SettingTable))
	}
	for i, setting := range SettingTable {
		if name := fields.Field(i).Tag.Get("json"); name != setting.Name || setting.Doc == "" {
			t.Errorf("the field is called %s, and the setting %s (%q)", name, setting.Name, setting.Doc)
		}
	}
}

func TestSettingsTogether(t *testing.T) {
	base, err := texts{"min_scale": "5", "max_scale": "5", "memory": "1GB"}.Apply(DefaultSettings())
	if err != nil || base.MinScale != 5 || base.MaxScale != 5 || base.Memory != 1<<30 || base.CPUs != 1 {
		t.Errorf("got %+v, %v", base, err)
	}
	for what, patch := range map[string]texts{
		"min above max":            {"min_scale": "6"},
		"max below min":            {"max_scale": "4"},
		"unknown":                  {"colour": "blue"},
		"of another case":          {"Timeout": "5s"},
		"one good, one bad":        {"timeout": "5s", "queue": "many"},
		"something long":           {strings.Repeat("x", 100000): "1"},
		"something long for queue": {"queue": strings.Repeat("9", 100000)},
		"something long for env":   {"env": strings.Repeat("9", 100000)},
		"plain and secret":         {"env": "A=1,B=2", "secrets": "B,C"},
	} {
		_, err := patch.Apply(base)
		if CodeOf(err) != CodeBadRequest {
			t.Errorf("%s: %v", what, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: the message has %d bytes", what, len(err.Error()))
		}
	}
	// What cannot stand alone may do so together.
	if got, err := (texts{"min_scale": "8", "max_scale": "9"}).Apply(base); err != nil || got.MinScale != 8 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSettingsJSON(t *testing.T) {
	text, err := json.Marshal(DefaultSettings())
	want := `{"timeout":"30s","memory":"128MB","cpus":1,"concurrency":1,"max_concurrency":1000000,"target_utilization":0.8,"min_scale":0,"max_scale":10,"max_calls":0,` +
		`"stable_window":"1m0s","idle_timeout":"5m0s","pause_after":"0s","queue":1000,"queue_timeout":"30s","start_timeout":"1m0s","network":"egress","runtime":"","public":false,"env":{},"secrets":[],"cors":"","keep_versions":50,"description":""}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	odd, err := texts{"timeout": "12345678ns", "memory": "33554433", "cpus": "0.07", "idle_timeout": "1h0m1.5s"}.Apply(DefaultSettings())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Settings{DefaultSettings(), odd} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Settings
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%+v became %s became %+v, %v", s, text, back, err)
		}
		// What is shown can be handed in again.
		var members map[string]any
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		patch := make(texts)
		for name, value := range members {
			given, isText := value.(string)
			if !isText {
				raw, _ := json.Marshal(value)
				given = string(raw)
			}
			patch[name] = given
		}
		if again, err := patch.Apply(Settings{}); err != nil || again != s {
			t.Errorf("%s handed in became %+v, %v", text, again, err)
		}
	}
	for _, bad := range []string{`{"timeout": "soon"}`, `{"memory": "lots"}`, `{"timeout": 30}`} {
		var s Settings
		if err := json.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s became %+v", bad, s)
		}
	}
}

// TestOlderSettings reads settings as dispatchers wrote them that had fewer.
func TestOlderSettings(t *testing.T) {
	const older = `{"timeout":"5s","memory":"64MB","cpus":0.5,"concurrency":3,"min_scale":1,"max_scale":4,"idle_timeout":"1m0s","queue":0,"queue_timeout":"2s","network":"none"}`
	want, err := settingsOf("timeout=5s memory=64MB cpus=0.5 concurrency=3 min_scale=1 max_scale=4 idle_timeout=1m queue=0 queue_timeout=2s network=none")
	if err != nil {
		t.Fatal(err)
	}
	// Into something used, and not into zeros alone.
	got := Settings{MaxConcurrency: 7, PauseAfter: 1, Queue: 9}
	if err := json.Unmarshal([]byte(older), &got); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got.MaxConcurrency != Unlimited || got.StartTimeout != DefaultSettings().StartTimeout {
		t.Errorf("the new settings are %+v", got)
	}
	got = Settings{}
	if err := json.Unmarshal([]byte(`{"max_concurrency":0}`), &got); err != nil || got.MaxConcurrency != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// texts are settings as a query has them.
type texts map[string]string

func (t texts) Apply(base Settings) (Settings, error) {
	var patch SettingsPatch
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if err := patch.Set(name, t[name]); err != nil {
			return base, err
		}
	}
	return patch.Apply(base)
}

// settingsOf reads "name=value name=value" over the defaults.
func settingsOf(text string) (Settings, error) {
	patch := make(texts)
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		patch[name] = value
	}
	return patch.Apply(DefaultSettings())
}

func TestBytes(t *testing.T) {
	for n, want := range map[Bytes]string{0: "0B", 1: "1B", 1023: "1023B", 1 << 10: "1KB", 1536: "1536B", 1 << 20: "1MB", 3 << 19: "1536KB", 64 << 30: "64GB"} {
		if n.String() != want {
			t.Errorf("%d is written %s, want %s", int64(n), n, want)
		}
		var back Bytes
		if err := back.UnmarshalText([]byte(want)); err != nil || back != n {
			t.Errorf("%s is read as %d, %v", want, int64(back), err)
		}
	}
}

// What documents say in Markdown errors say without it.
func TestSettingErrorsArePlainText(t *testing.T) {
	for _, s := range SettingTable {
		var p SettingsPatch
		if err := p.Set(s.Name, "\x00"); err == nil || strings.Contains(err.Error(), "`") {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}
