package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// testAviary names an aviary of the test's own, whose containers and network
// are gone when it ends.
func testAviary(t *testing.T) string {
	t.Helper()
	raw := make([]byte, 4)
	rand.Read(raw)
	aviary := "test-" + hex.EncodeToString(raw)
	dockerCLI(t, "version") // a missing engine is a failure
	t.Cleanup(func() {
		// A killed dispatcher's last requests may still be under way, so what
		// cannot be removed now can be later.
		eventually(t, time.Minute, "the aviary is empty", func() bool {
			ids := containers(t, aviary)
			if len(ids) > 0 {
				exec.Command("docker", append([]string{"rm", "--force", "--volumes"}, ids...)...).Run()
			}
			return len(ids) == 0
		})
		// Engine 20.10 may lose count of a network's endpoints when its client is
		// killed while a container starts; such a network goes when it restarts.
		for _, network := range networks(t, aviary) {
			if out, err := exec.Command("docker", "network", "rm", network).CombinedOutput(); err != nil {
				t.Logf("docker network rm: %s", out)
			}
		}
		// A killed dispatcher's mark.
		for _, mark := range lines(dockerCLI(t, "volume", "ls", "--quiet", "--filter", "label=fob.aviary="+aviary)) {
			dockerCLI(t, "volume", "rm", "--force", mark)
		}
	})
	return aviary
}

// containers lists the IDs of an aviary's containers, dead ones included.
func containers(t *testing.T, aviary string) []string {
	t.Helper()
	ids := lines(dockerCLI(t, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=fob.aviary="+aviary))
	slices.Sort(ids)
	return ids
}

// networks lists the IDs of an aviary's networks.
func networks(t *testing.T, aviary string) []string {
	t.Helper()
	return lines(dockerCLI(t, "network", "ls", "--quiet", "--filter", "label=fob.aviary="+aviary))
}

// dockerCLI runs the client and returns what it says.
func dockerCLI(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("docker", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v: %s (no engine? make test brings one up)", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func lines(text string) []string { return strings.Fields(text) }
