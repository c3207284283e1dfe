package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockHolder returns the ID of the process that holds the kernel's lock (flock) on the
// file at path. It returns 0 when the kernel lists no holder: the lock is free, or its holder
// is in a PID namespace that cannot be seen from here.
func lockHolder(path string) (int, error) {
	name, err := lockName(path)
	if err != nil {
		return 0, fmt.Errorf("the lock's holder cannot be looked up: %w", err)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, fmt.Errorf("the lock's holder cannot be looked up: %w", err)
	}
	for line := range strings.Lines(string(locks)) {
		// A line reads "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF". A process
		// that only waits has an arrow before FLOCK.
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[5] == name {
			pid, err := strconv.Atoi(f[4])
			if err != nil || pid < 0 {
				return 0, fmt.Errorf("/proc/locks has the line %q", line)
			}
			return pid, nil
		}
	}
	return 0, nil
}

// lockName returns the name that /proc/locks has for a file: device and inode. The
// device is the mount's, because stat reports another one on some file systems.
func lockName(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	about, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(about), "mnt_id:")
	id, _, _ := strings.Cut(rest, "\n")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		// A line reads "29 23 254:0 / / rw - ext4 /dev/vda1 rw".
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != strings.TrimSpace(id) {
			continue
		}
		var major, minor int
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			return "", fmt.Errorf("/proc/self/mountinfo has the line %q", line)
		}
		return fmt.Sprintf("%02x:%02x:%d", major, minor, info.Sys().(*syscall.Stat_t).Ino), nil
	}
	return "", fmt.Errorf("/proc/self/mountinfo lacks the mount of %s", path)
}

// findProcess pins a process: a later signal reaches this process or nobody, even if
// its ID has been reused. It fails with os.ErrProcessDone when there is no such
// process.
func findProcess(pid int) (pinned, error) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	// Without a handle (pidfd) the signal would go by ID. A process that has ended has
	// no handle either; signal 0 tells the two apart.
	if err := p.WithHandle(func(uintptr) {}); err != nil {
		if errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone) {
			err = os.ErrProcessDone
		}
		return nil, errors.Join(fmt.Errorf("process %d: %w", pid, err), p.Release())
	}
	return p, nil
}
