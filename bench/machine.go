package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine describes the machine in one line.
func machine() (string, error) {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil { // macOS does not have it
		for line := range strings.Lines(string(info)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	engine, err := docker("version", "--format", "Docker {{.Server.Version}}, Linux {{.Server.KernelVersion}}")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d × %s, %s, %s", runtime.NumCPU(), model, engine, runtime.Version()), nil
}

// docker runs the docker command and returns what it prints.
func docker(args ...string) (string, error) {
	var complaints bytes.Buffer
	cmd := exec.Command("docker", args...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, complaints.String())
	}
	return strings.TrimSpace(string(out)), nil
}
