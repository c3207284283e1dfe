package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestParseArgs(t *testing.T) {
	type args = map[string]string
	for query, want := range map[string]args{
		"":                          nil,
		"param1:1,param2:1":         {"param1": "1", "param2": "1"},
		"param1=1&param2=1":         {"param1": "1", "param2": "1"},
		"a=1&&b=2&":                 {"a": "1", "b": "2"},
		"&&":                        nil,
		"a":                         {"a": ""},
		"a&b":                       {"a": "", "b": ""},
		"a=":                        {"a": ""},
		"a:":                        {"a": ""},
		"a:,b:":                     {"a": "", "b": ""},
		"a=1=2":                     {"a": "1=2"},
		"a:1:2":                     {"a": "1:2"},
		"a=1:2":                     {"a": "1:2"},
		"a:1=2":                     {"a": "1=2"},
		"a=1,2":                     {"a": "1,2"},
		"a:1%2C2,b:%3A":             {"a": "1,2", "b": ":"},
		"a:1&b:2":                   {"a": "1&b:2"},
		"a=x+y":                     {"a": "x y"},
		"a:x+y":                     {"a": "x+y"},
		"a=x%2By&b=%26":             {"a": "x+y", "b": "&"},
		"a:x%20y":                   {"a": "x y"},
		"when:12:30,at:http%3A//x/": {"when": "12:30", "at": "http://x/"},
		"url=http://x/?a:b":         {"url": "http://x/?a:b"},
		"na%6De=v":                  {"name": "v"},
		"a%3Ab=1":                   {"a:b": "1"},
		"größe=%F0%9F%90%A6":        {"größe": "🐦"},
		"%c3%a4:ä":                  {"ä": "ä"},
		"a=%00%0d%0a%7f%1b":         {"a": "\x00\r\n\x7f\x1b"},
		`a="\`:                      {"a": `"\`},
		"a=%E2%80%A8%EF%BF%BD":      {"a": "\u2028\ufffd"},
		"A=1&a=2":                   {"A": "1", "a": "2"},
	} {
		got, err := parseArgs(query)
		if err != nil {
			t.Errorf("%q: %v", query, err)
			continue
		}
		var decoded args
		if got != nil {
			if err := json.Unmarshal(got, &decoded); err != nil {
				t.Errorf("%q: %s: %v", query, got, err)
			}
		}
		if !maps.Equal(decoded, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: got %v, want %v", query, decoded, want)
		}
		// It goes into a header.
		if i := strings.IndexFunc(string(got), func(r rune) bool { return r < ' ' || r >= 0x7f }); i >= 0 {
			t.Errorf("%q: %q has something at %d that no header may have", query, got, i)
		}
	}
}

// TestParseArgsRepeated: names that come more than once become lists.
func TestParseArgsRepeated(t *testing.T) {
	for query, want := range map[string]string{
		"a=1&a=2":                    `{"a":["1","2"]}`,
		"a:1,a:2":                    `{"a":["1","2"]}`,
		"a=1&%61=2&b=3&a=":           `{"a":["1","2",""],"b":"3"}`,
		"b=1&a=1&b=2&a=2&c=3":        `{"b":["1","2"],"a":["1","2"],"c":"3"}`,
		"ids[]=1":                    `{"ids":["1"]}`,
		"ids%5B%5D=1&ids[]=2&x[0]=3": `{"ids":["1","2"],"x[0]":"3"}`,
		"ids=1&ids[]=2":              `{"ids":["1","2"]}`,
		"ids[]:1,other:2":            `{"ids":["1"],"other":"2"}`,
		"a[][]=1":                    `{"a[]":["1"]}`,
	} {
		if got, err := parseArgs(query); err != nil || string(got) != want {
			t.Errorf("%q: got %s %v, want %s", query, got, err, want)
		}
	}
	many := strings.Repeat("a=1&", maxArgs)
	if got, err := parseArgs(many); err != nil || strings.Count(string(got), "1") != maxArgs {
		t.Errorf("%d of one name: %.80s %v", maxArgs, got, err)
	}
	if _, err := parseArgs(many + "a=1"); faas.CodeOf(err) != faas.CodeBadRequest {
		t.Errorf("one more: %v", err)
	}
}

func TestParseArgsKeepsOrder(t *testing.T) {
	got, err := parseArgs("z=1&a=2&m=3")
	if want := `{"z":"1","a":"2","m":"3"}`; err != nil || string(got) != want {
		t.Errorf("got %s %v, want %s", got, err, want)
	}
}

func TestParseArgsRefuses(t *testing.T) {
	for what, query := range map[string]string{
		"brackets alone":               "[]=1",
		"no name":                      "=1",
		"no name in the original form": ":1",
		"no name later":                "a=1&=2",
		"comma at the end":             "a:1,",
		"comma at the beginning":       ",a:1",
		"two commas":                   "a:1,,b:2",
		"comma in a value":             "a:1,2",
		"forms mixed":                  "a:1,b=2",
		"bad percent in a name":        "%zz=1",
		"bad percent in a value":       "a=%zz",
		"percent at the end":           "a=%",
		"half a percent at the end":    "a:%4",
		"name that is no UTF-8":        "%ff=1",
		"value that is no UTF-8":       "a=%ff",
		"raw value that is no UTF-8":   "a:\xff",
		"surrogate":                    "a=%ED%A0%80",
	} {
		if got, err := parseArgs(query); faas.CodeOf(err) != faas.CodeBadRequest {
			t.Errorf("%s: %q gave %s, %v", what, query, got, err)
		}
	}
}

func TestParseArgsLimits(t *testing.T) {
	many := func(n int) string {
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf("p%d=", i))
		}
		return strings.Join(parts, "&")
	}
	if _, err := parseArgs(many(maxArgs)); err != nil {
		t.Errorf("%d parameters: %v", maxArgs, err)
	}
	if _, err := parseArgs(many(maxArgs + 1)); faas.CodeOf(err) != faas.CodeBadRequest {
		t.Errorf("%d parameters: %v", maxArgs+1, err)
	}
	if _, err := parseArgs("a=" + strings.Repeat("x", maxQuery-2)); err != nil {
		t.Errorf("%d bytes: %v", maxQuery, err)
	}
	if _, err := parseArgs("a=" + strings.Repeat("x", maxQuery-1)); faas.CodeOf(err) != faas.CodeTooLarge {
		t.Errorf("%d bytes: %v", maxQuery+1, err)
	}
}
