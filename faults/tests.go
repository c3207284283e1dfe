package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// tests runs Go tests that make up a row, with more rounds (env) than in make test and
// with the trial's seed. What the first group of pattern matches in their log becomes a
// figure.
func (t *trial) tests(pkg, run, pattern string, env ...string) error {
	cmd := exec.Command("go", "test", "-count=1", "-timeout=30m", "-json", "-run", run, pkg)
	cmd.Env = append(append(os.Environ(), fmt.Sprintf("FOBTEST_SEED=%d", t.seed)), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.living.Store(cmd.Process.Pid, cmd.Process)
	defer t.living.Delete(cmd.Process.Pid)
	figures := regexp.MustCompile(pattern)
	var found []string
	passed := 0
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return fmt.Errorf("go test said %q", lines.Text())
		}
		switch {
		case event.Action == "pass" && event.Test != "":
			passed++
		case event.Action == "fail" && event.Test != "":
			t.violate("%s failed", event.Test)
		case event.Action == "skip" && event.Test != "":
			t.violate("%s was skipped", event.Test)
		case event.Action == "output":
			t.history.note("test", "test", event.Test, "said", event.Output)
			if match := figures.FindStringSubmatch(strings.TrimSpace(event.Output)); pattern != "" && match != nil {
				found = append(found, match[1])
			}
		}
	}
	err = cmd.Wait()
	t.figure("%d cases passed", passed)
	for _, figure := range slices.Compact(found) {
		t.figure("%s", figure)
	}
	if passed == 0 && err == nil {
		return fmt.Errorf("no test of %s is called %s", pkg, run)
	}
	return err
}

// power cuts the power on a model of the disk.
func power(t *trial) error {
	rounds := fmt.Sprintf("FOBTEST_POWERCUT_ROUNDS=%d", pick(t.faults, 2000, 20))
	return errors.Join(
		t.tests("./internal/store", "^TestPowerCut", `(\d+ power cuts .*)`, rounds, "FOBTEST_POWERCUT_LOSSES=4"),
		t.tests("./internal/journal", "^TestPowerCut", `(\d+ power cuts .*)`, rounds))
}

// diskFull fills small disks.
func diskFull(t *trial) error {
	return t.tests("./e2e", "^(TestDiskFull|TestFirstStartOnFullDisk)", `(\d+ functions of .*|\d+ starts failed .*)`)
}

// bits flips bits of a database: one bit of each byte, in a full run all, and random
// bits of a larger database.
func bits(t *trial) error {
	return t.tests("./internal/store", "^TestBitsFlipped", `(\d+ bits in .*)`,
		fmt.Sprintf("FOBTEST_BITS=%d", pick(t.faults, 0, 1)), fmt.Sprintf("FOBTEST_FLIPS=%d", pick(t.faults, 5000, 100)))
}

// misbehave runs functions that harm their sandbox.
func misbehave(t *trial) error {
	return t.tests("./e2e", "^TestDockerFaultSandboxes$", "")
}
