package faas

import (
	"strings"
	"testing"
)

// TestLogID: an ID of any length has one that fits into a frame.
func TestLogID(t *testing.T) {
	if LogID("mine") != "mine" || LogID("") != "" {
		t.Error("a short ID is another one in the log")
	}
	if id := LogID("-"); id == "-" { // in a frame it stands for no call
		t.Error("a call that is called - has the lines of no call")
	}
	long := strings.Repeat("x", 128)
	if id := LogID(long); len(id) > maxLogID || id == LogID(long+"y") {
		t.Errorf("a long ID is %s", id)
	}
}
