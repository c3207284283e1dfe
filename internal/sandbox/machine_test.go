package sandbox

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestMemoryOf(t *testing.T) {
	const meminfo = "MemTotal:       16384000 kB\nMemFree:        1 kB\n"
	const all = 16384000 << 10
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no control groups", nil, all},
		{"version 2, unlimited", map[string]string{"proc/self/cgroup": "0::/system.slice/fob.service\n", "sys/fs/cgroup/system.slice/fob.service/memory.max": "max\n"}, all},
		{"version 2", map[string]string{"proc/self/cgroup": "0::/system.slice/fob.service\n", "sys/fs/cgroup/system.slice/fob.service/memory.max": "1073741824\n"}, 1 << 30},
		{"version 2, the group above has less", map[string]string{
			"proc/self/cgroup": "0::/system.slice/fob.service\n",
			"sys/fs/cgroup/system.slice/fob.service/memory.max": "2147483648\n",
			"sys/fs/cgroup/system.slice/memory.max":             "1073741824\n",
		}, 1 << 30},
		{"version 2, in a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1 << 30},
		{"version 1, unlimited", map[string]string{"proc/self/cgroup": "3:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, all},
		{"version 1", map[string]string{"proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/a/b\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824\n"}, 1 << 30},
		{"version 1, in a container", map[string]string{"proc/self/cgroup": "3:memory:/docker/0123\n0::/docker/0123\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, 1 << 30},
		{"another group's", map[string]string{"proc/self/cgroup": "0::/mine\n", "sys/fs/cgroup/other/memory.max": "1\n"}, all},
		{"more than there is", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1099511627776\n"}, all},
	} {
		root := fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}}
		for name, text := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, err := memoryOf(root); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.name, got, err, c.want)
		}
	}
	for text, word := range map[string]string{"": "MemTotal", "MemTotal: many kB\n": "many"} {
		if _, err := memoryOf(fstest.MapFS{"proc/meminfo": {Data: []byte(text)}}); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, which should mention %s", text, err, word)
		}
	}
	if m, err := ThisMachine(); err != nil || m.CPUs < 1 || m.Memory < 1<<26 {
		t.Errorf("this machine has %+v, %v", m, err)
	}
}
