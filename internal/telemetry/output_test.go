package telemetry

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// Nobody waits for a reader who does not read; he is told what he missed.
func TestOutputSlowReader(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	out := NewOutput(write)
	log, err := NewLogger(out, "json", "info")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 1000)
	const lines = 3000 // three times what is kept, and as much again may be on its way
	for n := range lines {
		log.Info().Int("n", n).Msg(text)
	}
	dropped := out.Dropped()
	if dropped < lines/4 || dropped > lines-1000 {
		t.Errorf("%d of %d lines were dropped", dropped, lines)
	}
	in, got, told := bufio.NewScanner(read), 0, ""
	for told == "" && in.Scan() {
		if strings.Contains(in.Text(), "are missing here") {
			told = in.Text()
		} else {
			got++
		}
		if got == lines-dropped { // and with the next one it is told
			log.Info().Msg("go on")
		}
	}
	if !strings.Contains(told, `"lines":`) || got < lines-dropped {
		t.Errorf("after %d lines it told %q", got, told)
	}
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(io.Discard, read) }()
	out.Close()
	write.Close()
	<-done
}

// A reader that has gone costs the lines, and a close does not wait for one that
// does not read.
func TestOutputNoReader(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out := NewOutput(write)
	defer write.Close()
	read.Close()
	io.WriteString(out, "lost\n")
	for deadline := time.Now().Add(10 * time.Second); out.Dropped() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the line is not counted")
		}
	}
	out.Close()
	if n, err := out.Write([]byte("late\n")); n != 5 || err != nil || out.Dropped() != 2 {
		t.Errorf("a late line: %d, %v, %d dropped", n, err, out.Dropped())
	}

	read, write, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	out = NewOutput(write)
	io.WriteString(out, strings.Repeat("x", 200<<10)) // more than a pipe holds
	begin := time.Now()
	out.Close()
	if took := time.Since(begin); took < lastWords || took > 10*lastWords {
		t.Errorf("Close took %v", took)
	}
}

// All that was logged before Close is written.
func TestOutputClose(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := NewOutput(file)
	for range 1000 {
		io.WriteString(out, "line\n")
	}
	out.Close()
	if text, err := os.ReadFile(file.Name()); err != nil || strings.Count(string(text), "line\n") != 1000 {
		t.Errorf("it has %d bytes (%v)", len(text), err)
	}
}
