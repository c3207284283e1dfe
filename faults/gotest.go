package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// goTest is a row whose fault is the work of tests.
type goTest struct {
	folder, pattern string
	env             []string       // of a full run, beside FOBTEST_SEED
	figure          *regexp.Regexp // lines of the log that are figures
}

// passed is how go test -v says that a test is well.
var passed = regexp.MustCompile(`(?m)^ *--- PASS`)

// run runs the tests. They print what they did; the whole output goes to the
// history.
func (g goTest) run(t *trial) error {
	cmd := exec.Command("go", "test", "-count=1", "-v", "-timeout=30m", "-run", g.pattern, g.folder)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "FOB_") || strings.HasPrefix(entry, "FOB_BASE_IMAGE=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("FOBTEST_SEED=%d", t.seed))
	if !t.quick {
		cmd.Env = append(cmd.Env, g.env...)
	}
	out, err := cmd.CombinedOutput()
	text := string(bytes.ToValidUTF8(out, []byte("?")))
	t.history.note("go test", "args", cmd.Args, "env", g.env, "output", text)
	n := len(passed.FindAllString(text, -1))
	switch {
	case err != nil:
		t.violate("%s: %v: %s", strings.Join(cmd.Args, " "), err, failures(text))
	case n == 0:
		t.violate("%s: no test of that name", strings.Join(cmd.Args, " "))
	}
	t.figure("%d tests and subtests", n)
	if g.figure != nil {
		for _, m := range g.figure.FindAllStringSubmatch(text, -1) {
			t.figure("%s", m[1])
		}
	}
	return nil
}

// failures is what of go test's output tells about failures: the lines around
// them.
func failures(text string) string {
	if i := strings.Index(text, "--- FAIL"); i >= 0 {
		text = text[max(0, i-500):]
	}
	return text[:min(len(text), 1500)]
}
