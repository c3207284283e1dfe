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

// Machine is what sandboxes share.
type Machine struct {
	CPUs   int
	Memory int64 // bytes
}

// ThisMachine is what this process and those that it starts may use: the
// machine's processors and memory, or its control group's memory when that is
// less.
func ThisMachine() (Machine, error) {
	memory, err := memoryOf(os.DirFS("/"))
	if err != nil {
		return Machine{}, fmt.Errorf("finding out how much memory there is: %w", err)
	}
	return Machine{CPUs: runtime.NumCPU(), Memory: memory}, nil
}

// memoryOf reads the memory in bytes from the root of a Linux file system.
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
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // such is a kernel without control groups
		return 0, err
	}
	for line := range strings.Lines(string(groups)) {
		// number:controllers:path, without controllers in version 2
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
		// A group is limited by those above it too. In a container the path may
		// be the machine's while the files begin at the container's own group.
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

// limitIn reads a limit in bytes; "max", like a file that is not there, is none.
func limitIn(root fs.FS, file string) (limit int64, limited bool) {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, false
	}
	limit, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return limit, err == nil && limit > 0
}
