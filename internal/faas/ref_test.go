package faas

import (
	"strings"
	"testing"
)

const testID = "3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b"

func TestParseRef(t *testing.T) {
	longest := strings.Repeat("a", 63)
	for text, want := range map[string]Ref{
		"hello":                             {Name: "hello"},
		"h":                                 {Name: "h"},
		"7":                                 {Name: "7"},
		"Hello_World-2":                     {Name: "Hello_World-2"},
		longest:                             {Name: longest},
		"hello@1":                           {Name: "hello", Version: 1},
		"hello@2147483647":                  {Name: "hello", Version: 2147483647},
		"hello:live":                        {Name: "hello", Alias: "live"},
		"hello:3":                           {Name: "hello", Alias: "3"},
		testID:                              {ID: testID},
		strings.ToUpper(testID):             {ID: testID},
		testID + "@12":                      {ID: testID, Version: 12},
		testID + ":blue":                    {ID: testID, Alias: "blue"},
		strings.ReplaceAll(testID, "-", ""): {Name: strings.ReplaceAll(testID, "-", "")},
	} {
		got, err := ParseRef(text)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v", text, got, err)
			continue
		}
		if got.Bare() != !strings.ContainsAny(text, "@:") {
			t.Errorf("%q: Bare is %v", text, got.Bare())
		}
		again, err := ParseRef(got.String())
		if err != nil || again != got {
			t.Errorf("%q: is written %q, which is %+v, %v", text, got, again, err)
		}
	}
}

func TestParseRefRefuses(t *testing.T) {
	for _, text := range []string{
		"", "@1", ":live", "hello@", "hello:", "hello@0", "hello@-1", "hello@+1", "hello@01", "hello@1.0", "hello@1e3", "hello@x", "hello@ 1",
		"hello@99999999999999999999", "hello@1:live", "hello:live@1", "hello:a:b", "hello@1@2", "hello:two words", "hello:-a", "hello:" + strings.Repeat("a", 64),
		"-a", "_a", "a b", "a/b", "../../etc", "a\\b", "a.b", "ä", "a\x00", "a\n", "\xff", "hello\u200b", strings.Repeat("a", 64),
		"{" + testID + "}", "urn:uuid:" + testID, "%68ello", strings.Repeat("\xff", 1000),
	} {
		got, err := ParseRef(text)
		if CodeOf(err) != CodeBadRequest {
			t.Errorf("%.80q: got %+v, %v", text, got, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%.80q: the message has %d bytes", text, len(err.Error()))
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "7", "Hello_World-2", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "-a", "_a", "a b", "a@1", "a:b", "a/b", "ä", "a\n", "a\x00", strings.Repeat("a", 64),
		testID, strings.ToUpper(testID), strings.ReplaceAll(testID, "-", ""), strings.Repeat("x", 100000),
	} {
		err := CheckName(name)
		if CodeOf(err) != CodeBadRequest {
			t.Errorf("%.80q: %v", name, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%.80q: the message has %d bytes", name, len(err.Error()))
		}
	}
}

// TestNamesAreRefs: whatever is a name can be called by it.
func TestNamesAreRefs(t *testing.T) {
	for _, name := range []string{"a", "7", "live", "0a1b", strings.Repeat("f", 36), "a-b_c", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if ref, err := ParseRef(name); err != nil || ref != (Ref{Name: name}) {
			t.Errorf("%q: got %+v, %v", name, ref, err)
		}
	}
}
