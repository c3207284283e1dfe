package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Machine is what the sandboxes of a dispatcher share.
type Machine struct {
	CPUs   int
	Memory int64 // bytes
}

// ThisMachine returns what this process and its children may use: the machine's
// processors, and its memory or that of our control group, whichever is less.
func ThisMachine() (Machine, error) {
	memory, err := memoryOf(os.DirFS("/"))
	if err != nil {
		return Machine{}, fmt.Errorf("finding out how much memory there is: %w", err)
	}
	return Machine{CPUs: runtime.NumCPU(), Memory: memory}, nil
}

// memoryOf returns the memory in bytes, read from the root of a Linux file system.
func memoryOf(root fs.FS) (int64, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	var memory int64
	for line := range strings.Lines(string(text)) {
		if kilobytes, found := strings.CutPrefix(line, "MemTotal:"); found {
			if _, err := fmt.Sscanf(kilobytes, "%d kB", &memory); err != nil {
				return 0, fmt.Errorf("/proc/meminfo says %q: %w", line, err)
			}
		}
	}
	if memory == 0 {
		return 0, errors.New("/proc/meminfo has no MemTotal")
	}
	memory *= 1 << 10
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without control groups has no such file
		return 0, err
	}
	for line := range strings.Lines(string(groups)) {
		// A line is number:controllers:path. In version 2 it has no controllers.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		folder, file := "sys/fs/cgroup", "memory.max"
		switch fields[1] {
		case "":
		case "memory":
			folder, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// The groups above limit it, too. In a container the path may be the machine's,
		// while the files begin at the container's own group.
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			if limit, limited := limitIn(root, path.Join(folder, group, file)); limited {
				memory = min(memory, limit)
			}
			if group == "/" {
				break
			}
		}
	}
	return memory, nil
}

// limitIn reads a limit in bytes. "max" means no limit, and so does a missing file.
func limitIn(root fs.FS, file string) (limit int64, limited bool) {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, false
	}
	limit, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return limit, err == nil && limit > 0
}
