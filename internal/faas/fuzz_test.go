package faas

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// refPattern is what a ref is, written once more.
var refPattern = regexp.MustCompile(`^(?:([0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})|([A-Za-z0-9][A-Za-z0-9_-]{0,62}))(?:@([1-9][0-9]*)|:([A-Za-z0-9][A-Za-z0-9_-]{0,62}))?$`)

// FuzzParseRef: what is taken for a ref is one, means what it says, and is
// written so that it means the same.
func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{
		"hello", "hello@1", "hello:live", "3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b", "3F2B8C1E-5D0A-4E6F-9B7C-1A2D3E4F5A6B@12", "a@0", "a@+1", "a@99999999999999999999", "a@1@2", "a:b@1",
		"", "@", ":", "@1", "a b", "a\x00", "é", strings.Repeat("a", 64), "{3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b}", "urn:uuid:3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseRef(text)
		m := refPattern.FindStringSubmatch(text)
		if err != nil {
			if CodeOf(err) != CodeBadRequest || ref != (Ref{}) {
				t.Fatalf("%q: %+v with %v", text, ref, err)
			}
			if m != nil && len(m[3]) < 19 { // longer ones may be more than an int holds
				t.Fatalf("%q is refused: %v", text, err)
			}
			return
		}
		if m == nil || ref.ID != strings.ToLower(m[1]) || ref.Name != m[2] || ref.Alias != m[4] || (ref.Version > 0) != (m[3] != "") || (ref.ID == "") == (ref.Name == "") {
			t.Fatalf("%q became %+v", text, ref)
		}
		if want := strings.ToLower(m[1]) + strings.TrimPrefix(text, m[1]); ref.String() != want {
			t.Fatalf("%q became %s", text, ref)
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Fatalf("%q became %+v became %+v, %v", text, ref, again, err)
		}
	})
}

// FuzzSettings: settings that are taken can be stored and shown, and what is
// shown can be handed in again.
func FuzzSettings(f *testing.F) {
	for _, s := range SettingTable {
		for _, value := range []string{"", "0", "1", "10", "0.5", "1e3", "NaN", "Inf", "-1", "30s", "1h0m0.000000001s", "128MB", "1.5GiB", "9223372036854775807", "egress", "*", "https://a.example:443,http://[::1]:80"} {
			f.Add(s.Name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		s, err := (texts{name: value}).Apply(DefaultSettings())
		if err != nil {
			if CodeOf(err) != CodeBadRequest {
				t.Fatalf("%s=%q: %v", name, value, err)
			}
			return
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("%s=%q cannot be stored: %v", name, value, err)
		}
		var back Settings
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Fatalf("%s=%q became %s became %+v, %v", name, value, text, back, err)
		}
		var members map[string]any
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		shown, isText := members[name].(string)
		if !isText {
			raw, _ := json.Marshal(members[name])
			shown = string(raw)
		}
		if again, err := (texts{name: shown}).Apply(DefaultSettings()); err != nil || again != s {
			t.Fatalf("%s=%q is shown as %q, which becomes %+v, %v", name, value, shown, again, err)
		}
		// Each origin is one, for others than us.
		for origin := range strings.SplitSeq(string(s.CORS), ",") {
			if u, err := url.Parse(origin); s.CORS != "" && s.CORS != AnyOrigin && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin || !s.CORS.Allows(origin)) {
				t.Fatalf("%q has the origin %q", value, origin)
			}
		}
	})
}
