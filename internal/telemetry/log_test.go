package telemetry

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// logged returns what a logger writes to a file.
func logged(t *testing.T, format, level string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log, err := NewLogger(out, format, level)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug().Msg("fine detail")
	log.Info().Str("function", "f\n\x1b[31m").Msg("hello")
	log.Error().Msg("trouble")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLoggerWritesJSON(t *testing.T) {
	for _, format := range []string{"json", "auto"} { // a file is no terminal
		lines := strings.Split(strings.TrimSpace(logged(t, format, "info")), "\n")
		if len(lines) != 2 {
			t.Fatalf("%s: got %q", format, lines)
		}
		for i, want := range []string{"hello", "trouble"} {
			var line struct{ Level, Time, Message, Function string }
			if err := json.Unmarshal([]byte(lines[i]), &line); err != nil || line.Message != want || line.Time == "" || line.Level == "" {
				t.Errorf("%s: got %s, %v", format, lines[i], err)
			}
		}
	}
}

func TestLoggerWritesText(t *testing.T) {
	text := logged(t, "text", "debug")
	if strings.Count(text, "\n") != 3 || !strings.Contains(text, "fine detail") || strings.Contains(text, "{") {
		t.Errorf("got %q", text)
	}
	// Colours are for terminals, and a function's text must not bring its own.
	if strings.Contains(text, "\x1b") {
		t.Errorf("got %q", text)
	}
}

func TestLoggerLevels(t *testing.T) {
	for level, lines := range map[string]int{"debug": 3, "info": 2, "warn": 1, "error": 1} {
		if text := logged(t, "json", level); strings.Count(text, "\n") != lines {
			t.Errorf("%s: got %q", level, text)
		}
	}
}

func TestLoggerRefuses(t *testing.T) {
	for _, c := range [][2]string{{"json", ""}, {"json", "loud"}, {"xml", "info"}, {"", "info"}} {
		if _, err := NewLogger(os.Stderr, c[0], c[1]); err == nil || !strings.Contains(err.Error(), "use ") {
			t.Errorf("format %q and level %q: %v", c[0], c[1], err)
		}
	}
}
