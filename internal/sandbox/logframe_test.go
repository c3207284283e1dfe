package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLogFrames: frames are read as the contract says.
func TestLogFrames(t *testing.T) {
	long := strings.Repeat("x", maxLogText)
	in := NewLogReader(strings.NewReader("abc stdout 1700000000000000 5\na\x00\xff\nb- error+ 0 0\n- dropped 7 2\n12" +
		fmt.Sprintf("%s stderr 1 %d\n%s", strings.Repeat("i", maxLogID), len(long), long)))
	for _, want := range []LogFrame{
		{Call: "abc", Level: "stdout", Time: time.UnixMicro(1700000000000000), Text: []byte("a\x00\xff\nb")},
		{Level: "error", More: true, Time: time.UnixMicro(0)},
		{Time: time.UnixMicro(7), Dropped: 12},
		{Call: strings.Repeat("i", maxLogID), Level: "stderr", Time: time.UnixMicro(1), Text: []byte(long)},
	} {
		got, err := in.Next()
		if err != nil || !bytes.Equal(got.Text, want.Text) {
			t.Fatalf("got %.200q, %v", got.Text, err)
		}
		if got.Text, want.Text = nil, nil; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %+v, not %+v", got, want)
		}
	}
	if _, err := in.Next(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
}

// TestBadLogFrames: whatever is malformed ends the reading.
func TestBadLogFrames(t *testing.T) {
	for _, bad := range []string{
		"\n", "a stdout 1 0", "a stdout 1\n", "a stdout 1 0 \n", "a stdout 1 0 x\n", " stdout 1 0\n", "a\tb stdout 1 0\n", "ä stdout 1 0\n", strings.Repeat("i", 65) + " stdout 1 0\n",
		"a STDOUT 1 0\n", "a stdout++ 1 0\n", "a critical 1 0\n", "a  1 0\n", "a stdout -1 0\n", "a stdout 1 -1\n", "a stdout 1 +1\nx", "a stdout 1 0x1\nx", "a stdout 1 65537\n" + strings.Repeat("x", 65537),
		"a stdout 9999999999999999999 0\n", "a stdout 1 2\nx", "a dropped 1 1\n5", "- dropped 1 1\n0", "- dropped 1 1\nx", "- dropped 1 0\n", "- dropped+ 1 1\n1", strings.Repeat("a", 5000), strings.Repeat("a ", 200) + "\n",
	} {
		f, err := NewLogReader(strings.NewReader(bad)).Next()
		if err == nil || !errors.Is(err, ErrBadFrame) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%.80q is %+v, %v", bad, f, err)
		}
	}
}

// FuzzLogFrames: whatever comes out of a sandbox is frames within bounds, and what they
// say is written in them.
func FuzzLogFrames(f *testing.F) {
	for _, seed := range []string{"a stdout 1 1\nx- error+ 2 0\n", "- dropped 3 2\n12", "a stdout 1 3\nx", "a info 1 65536\n", "a b c d\n", "\n\n\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, rest := NewLogReader(bytes.NewReader(raw)), raw
		for {
			frame, err := in.Next()
			if err != nil {
				return
			}
			call, level, text := frame.Call, frame.Level, frame.Text
			if call == "" {
				call = "-"
			}
			if frame.More {
				level += "+"
			}
			if frame.Dropped > 0 {
				if level != "" || text != nil {
					t.Fatalf("got %+v", frame)
				}
				level = "dropped"
			} else if !slices.Contains(LogLevels, frame.Level) || len(text) > maxLogText || len(call) > maxLogID {
				t.Fatalf("got %+v", frame)
			}
			head, behind, _ := bytes.Cut(rest, []byte("\n"))
			parts := strings.Split(string(head), " ")
			if len(parts) != 4 || parts[0] != call || parts[1] != level || !bytes.HasPrefix(behind, text) {
				t.Fatalf("%q was read as %+v", head, frame)
			}
			n, ok := number([]byte(parts[3]))
			if !ok || frame.Dropped == 0 && int(n) != len(text) {
				t.Fatalf("%q was read as %d bytes", head, len(text))
			}
			rest = behind[n:]
		}
	})
}

// TestUsage: what a call cost is read, and what is malformed says nothing.
func TestUsage(t *testing.T) {
	for text, want := range map[string]Usage{
		"cpu=1500; peak=4096":         {CPU: 1500 * time.Microsecond, Memory: 4096},
		"cpu=7":                       {CPU: 7 * time.Microsecond},
		"cpu=7; shared":               {CPU: 7 * time.Microsecond, Shared: true},
		"cpu=7;peak=1;shared":         {CPU: 7 * time.Microsecond, Memory: 1, Shared: true},
		"":                            {},
		"cpu=-1":                      {},
		"cpu=99999999999999999999":    {},
		"cpu=999999999999999999":      {},
		"peak=1; cpu=7":               {},
		"cpu=7; shared; peak=1":       {},
		"cpu=7; peak=x":               {},
		"cpu=7; what":                 {},
		"cpu=7; shared=1":             {},
		"cpu=1;;;;;;;;;;;;;;;;;;;;;;": {},
	} {
		if got := parseUsage([]byte(text)); got != want {
			t.Errorf("%q is %+v, not %+v", text, got, want)
		}
	}
}
