package docker

import (
	"testing"

	"github.com/docker/docker/api/types/container"
)

func TestMountedFrom(t *testing.T) {
	const mountinfo = `100 90 0:50 / / rw - overlay overlay rw
101 100 254:0 /docker/volumes/v/_data /sockets rw,relatime - ext4 /dev/vda1 rw
102 100 254:1 / /disk rw - ext4 /dev/vdb1 rw
103 100 254:0 /home/a\040b /with\040blank rw - ext4 /dev/vda1 rw
`
	for name, c := range map[string]struct {
		source, destination string
		want                bool
	}{
		"a volume":                 {"/var/lib/docker/volumes/v/_data", "/sockets", true},
		"of an engine in a folder": {"/volumes/v/_data", "/sockets", true},
		"of an engine elsewhere":   {"/elsewhere/v/_data", "/sockets", true},
		"another volume":           {"/var/lib/docker/volumes/w/_data", "/sockets", false},
		"another place":            {"/var/lib/docker/volumes/v/_data", "/data", false},
		"a whole disk":             {"/mnt/disk", "/disk", true},
		"with a blank":             {"/home/a b", "/with blank", true},
		"with another after blank": {"/home/a c", "/with blank", false},
	} {
		if got := mountedFrom(mountinfo, &container.MountPoint{Source: c.source, Destination: c.destination}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
