package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// nasty is what nobody may say to a terminal: colours and window titles, lines
// that look like ours, NUL, C1 controls (U+009B begins a sequence as ESC [ does),
// directions, invisible characters, bytes that are no UTF-8.
const nasty = "\x1b[31m\x1b]0;title\a\r\n{\"level\":\"error\"}\n\x00\x08\x7f\u009b31m\u0085\u202e\u2066\u2028\u2029\u200b\ufeff\U000e0041\xff\xc3"

// wantNeutral fails the test if a text has anything that is not printable, but
// line breaks that are ours.
func wantNeutral(t *testing.T, what, text string, lines int) {
	t.Helper()
	for i, r := range text {
		if !unicode.IsPrint(r) && r != '\n' {
			t.Errorf("%s: %U at %d of %q", what, r, i, text)
			return
		}
	}
	if strings.Count(text, "\n") != lines {
		t.Errorf("%s has other than %d lines: %q", what, lines, text)
	}
}

func TestLoggerIsNeutral(t *testing.T) {
	for format, lines := range map[string]int{"json": 8, "text": 8} {
		path := filepath.Join(t.TempDir(), "log")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		log, err := NewLogger(out, format, "debug")
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Msg("plain é 雀")
		log.Info().Msg(nasty)
		log.Debug().Msg(nasty)
		log.Warn().Str("value", nasty).Strs("values", []string{nasty}).Msg("a field")
		log.Error().Err(errors.New(nasty)).Bytes("stack", []byte(nasty)).Msg("an error")
		log.Error().Interface("panic", map[string]any{nasty: []string{nasty}}).Msg("a panic")
		log.Error().Interface("panic", errors.New(nasty)).Any("other", struct{ A any }{nasty}).Msg("a panic")
		Standard(log).Printf("http: panic serving %s", nasty)
		out.Close()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		wantNeutral(t, format, string(text), lines)
		if !strings.Contains(string(text), "plain é 雀") || !strings.Contains(string(text), `\u001b`) {
			t.Errorf("%s: %s", format, text)
		}
		if format != "json" {
			continue
		}
		// Who reads the JSON has it all.
		var line struct{ Message string }
		if err := json.Unmarshal(bytes.Split(text, []byte("\n"))[1], &line); err != nil || line.Message != strings.ToValidUTF8(strings.ReplaceAll(nasty, "\xff\xc3", "\ufffd\ufffd"), "\ufffd") {
			t.Errorf("read back %q, %v", line.Message, err)
		}
	}
}

func TestNeutral(t *testing.T) {
	var out bytes.Buffer
	w := Neutral(&out)
	if n, err := w.Write([]byte(nasty)); n != len(nasty) || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	w.Write([]byte("as it is\n"))
	wantNeutral(t, "a message", out.String(), 3)
	if !strings.HasSuffix(out.String(), "as it is\n") {
		t.Errorf("got %q", out.String())
	}
}

func BenchmarkLog(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	log, err := NewLogger(null, "json", "debug")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		log.Debug().Str("call", "3f2b0c1e").Int("version", 1).Msg("called")
	}
}
