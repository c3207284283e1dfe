package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// smallDisk is a folder on a disk of its own, until the end of the test.
func smallDisk(t *testing.T, megabytes int64) string {
	t.Helper()
	dir := shortDir(t)
	image, folder := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, megabytes<<20), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, folder}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s\nThis test needs a small disk. Run it as root, with e2fsprogs and loop devices; in a container, with --privileged.", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", folder).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", folder, err, out)
		}
	})
	return folder
}

const ballast = "ballast"

// fillDisk leaves no block free on the disk that has a folder. What it fills it
// with is the file ballast.
func fillDisk(t *testing.T, folder string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(folder, ballast), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		// Synced, for some blocks are only found to be missing then, and others found.
		_, err := f.Write(make([]byte, size))
		if err = errors.Join(err, f.Sync()); err == nil {
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		size /= 2
	}
}

// freeDisk gives back what fillDisk took.
func freeDisk(t *testing.T, folder string) {
	t.Helper()
	if err := os.Remove(filepath.Join(folder, ballast)); err != nil {
		t.Fatal(err)
	}
}

// wantsFull fails the test unless the answer says that the disk is full.
func (a answered) wantsFull(t *testing.T) {
	t.Helper()
	p := a.wantsProblem(t, 507, "no_space")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("Fob-Error") != "platform" || !p.Retryable || !strings.Contains(p.Detail, "free space") {
		t.Errorf("answered %v %s, which lacks something", a.Header, a.Body)
	}
}

// TestDiskFull registers functions until the disk is full, while calls go on;
// frees space, and registers more.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	data := smallDisk(t, 12)
	if err := os.WriteFile(filepath.Join(data, ballast), make([]byte, 4<<20), 0o600); err != nil { // to be freed
		t.Fatal(err)
	}
	settings := []string{"FOB_DATA=" + data, "FOB_SOCKETS=" + shortDir(t), "FOB_POOL=python=1,node=0"}
	p := boot(t, settings...)
	p.gen("?name=add", addCode)
	p.do("PUT", "/api/functions/off?max_concurrency=0&timeout=10s", addCode+strings.Repeat("#", 20<<10))
	p.gen("?name=cold&idle_timeout=1ms", "def callme(): return 'cold'\n")

	callers := p.keepCalling(2)
	acked := map[string]string{} // functions by name, with their code
	register := func(name string, size int) answered {
		code := fmt.Sprintf("def callme(): return %q\n", name)
		code += strings.Repeat("#", size-len(code))
		a := p.do("PUT", "/api/functions/"+name+"?idle_timeout=1ms", code)
		if a.Status == http.StatusCreated {
			acked[name] = code
		}
		return a
	}
	registered := 0
	for {
		a := register(fmt.Sprintf("f-%d", registered), 200<<10)
		if a.Status != http.StatusCreated {
			a.wantsFull(t)
			p.do("GET", "/api/backup", "").wantsFull(t) // the copy would be on that disk
			break
		}
		registered++
	}
	if registered < 10 {
		t.Errorf("only %d functions of 200 KB fit on the disk", registered)
	}
	// Now not even a little is left, but in the database itself: what the last
	// registration was given before it was refused more.
	const tooMuch = 1 << 20
	fillDisk(t, data)
	full := fmt.Sprintf("f-%d", registered)
	for range 3 {
		register(full, tooMuch).wantsFull(t)
		p.do("PUT", "/api/secrets/KEY", "swordfish").wantsFull(t)
	}
	p.do("GET", "/api/functions/"+full, "").wantsProblem(t, 404, "unknown_function")
	p.do("GET", "/api/secrets", "").wants(t, 200, `{"secrets": []}`)
	if _, err := os.Stat(filepath.Join(data, "secret.key")); err == nil {
		t.Error("there is a key file, which cannot be whole")
	}
	p.do("GET", "/api/call/cold", "").wants(t, 200, `{"result": "cold"}`)
	for n := 0; ; n++ { // small changes find room in the database, for a while
		a := p.do("PATCH", "/api/functions/off", fmt.Sprintf(`{"keep_versions": 1000, "queue": %d, "env": {"A": %q}}`, n, strings.Repeat("a", 30<<10)))
		if a.Status != http.StatusOK {
			a.wantsFull(t)
			break
		}
	}
	refused := p.versions("off")

	// A start needs no space.
	callers.stop()
	p.kill()
	p = boot(t, settings...)
	p.holds(acked)
	callers = p.keepCalling(2)
	register(full, tooMuch).wantsFull(t)
	if now := p.versions("off"); now != refused {
		t.Errorf("the function has %d versions after the restart, and had %d", now, refused)
	}

	freeDisk(t, data)
	for n := range 3 {
		if a := register(fmt.Sprintf("f-%d", registered+n), 200<<10); a.Status != http.StatusCreated {
			t.Errorf("there is space, and a registration is answered %d %s", a.Status, a.Body)
		}
	}
	if a := p.do("PUT", "/api/secrets/KEY", "swordfish"); a.Status != http.StatusCreated {
		t.Errorf("there is space, and a secret is answered %d %s", a.Status, a.Body)
	}
	p.do("PATCH", "/api/functions/off?queue=99999", "")
	refused++
	calls := callers.stop()
	p.kill()
	p = boot(t, settings...)
	p.holds(acked)
	if now := p.versions("off"); now != refused {
		t.Errorf("the function has %d versions in the end, want %d", now, refused)
	}
	p.do("GET", "/api/call/add?param1:1,param2:1", "").wants(t, 200, `{"result": 2}`)
	p.auditEndsWell()
	t.Logf("%d functions of 200 KB fitted on the disk; %d calls meanwhile", registered, calls)
}

// TestDiskFullOfSockets has everything on the disk, as is the default: there is
// no space for a sandbox either.
func TestDiskFullOfSockets(t *testing.T) {
	t.Parallel()
	data := smallDisk(t, 8)
	r := boot(t, "FOB_DATA="+data, "FOB_POOL=python=1,node=0", "FOB_POOL_MAX=1")
	r.gen("?name=add", addCode)
	r.gen("?name=cold&idle_timeout=1ms", "def callme(): return 'cold'\n")
	eventually(t, time.Minute, "the pool is full, and nothing runs the other function", func() bool {
		return r.blank() == 1 &&
			len(r.meta("cold").Sandboxes) == 0
	})
	fillDisk(t, data)
	for n := range 5 { // the first may have the pool's sandbox
		a := r.do("POST", "/api/gen", addCode+strings.Repeat("#", 100<<10))
		if a.Status == http.StatusServiceUnavailable {
			a.wantsProblem(t, 503, "no_capacity")
		} else {
			a.wantsFull(t)
		}
		if n > 0 {
			r.do("GET", "/api/call/cold", "").wantsProblem(t, 503, "no_capacity")
		}
		r.do("GET", "/api/call/add?param1:1,param2:1", "").wants(t, 200, `{"result": 2}`)
	}
	freeDisk(t, data)
	eventually(t, time.Minute, "sandboxes start again", func() bool { // which is tried anew after a while
		return r.do("GET", "/api/call/cold", "").Status == http.StatusOK
	})
	r.gen("", addCode+strings.Repeat("#", 100<<10))
}

// TestFirstStartOnFullDisk begins with no free block, and gives a start one more
// at a time.
func TestFirstStartOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 4)
	data := filepath.Join(disk, "data")
	settings := []string{"FOB_DATA=" + data, "FOB_SOCKETS=" + shortDir(t)}
	fillDisk(t, disk)
	info, err := os.Stat(filepath.Join(disk, ballast))
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for size := info.Size(); ; size -= 4096 {
		if err := os.Truncate(filepath.Join(disk, ballast), size); err != nil {
			t.Fatal(err)
		}
		p := bootUnready(t, settings...)
		if p.awaitReadyOrEnd() {
			p.kill()
			break
		}
		if out := p.Log.String(); p.State().ExitCode() != 1 || !strings.Contains(out, "no space left on device") || !strings.Contains(out, "free space") {
			t.Fatalf("it ended with %v and said\n%s", p.State(), out)
		}
		if left, _ := filepath.Glob(data + "/*.new-*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		failed++
	}
	if failed == 0 {
		t.Error("the first start found space on a full disk")
	}
	freeDisk(t, disk)
	p := boot(t, settings...)
	p.gen("?name=add", addCode)
	p.do("GET", "/api/call/add?param1:1,param2:1", "").wants(t, 200, `{"result": 2}`)
	t.Logf("%d starts failed for want of space", failed)
}

// awaitReadyOrEnd waits until the process is ready, or has ended.
func (p *dispatcher) awaitReadyOrEnd() (ready bool) {
	p.t.Helper()
	eventually(p.t, time.Minute, "the process is ready or has ended", func() bool {
		select {
		case <-p.Ended():
			return true
		default:
		}
		a, err := p.try("GET", "/readyz", "")
		ready = err == nil && a.Status == http.StatusOK
		return ready
	})
	return ready
}

// callers make calls, one after the other.
type callers struct {
	calls atomic.Int64
	ended chan struct{}
	all   sync.WaitGroup
}

// keepCalling has n callers call the function add, and wants each call answered.
func (p *dispatcher) keepCalling(n int) *callers {
	c := &callers{ended: make(chan struct{})}
	for range n {
		c.all.Go(func() {
			for {
				select {
				case <-c.ended:
					return
				default:
				}
				a, err := p.try("GET", "/api/call/add?param1:1,param2:1", "")
				if err != nil || a.Status != http.StatusOK || a.Body != `{"result": 2}` {
					p.t.Errorf("a call was answered %d %s (%v)", a.Status, a.Body, err)
					return
				}
				c.calls.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return c
}

// stop ends the callers and returns how many calls they made.
func (c *callers) stop() int64 {
	close(c.ended)
	c.all.Wait()
	return c.calls.Load()
}

// holds fails the test unless the functions with names f-… are exactly these, of
// one version each.
func (p *dispatcher) holds(code map[string]string) {
	p.t.Helper()
	var list api.Functions
	if err := json.Unmarshal([]byte(p.do("GET", "/api/functions?limit=1000", "").Body), &list); err != nil {
		p.t.Fatal(err)
	}
	found := 0
	for _, fn := range list.Functions {
		if !strings.HasPrefix(fn.Name, "f-") {
			continue
		}
		found++
		if code[fn.Name] == "" {
			p.t.Errorf("%s was refused, and is there", fn.Name)
		}
	}
	if found != len(code) {
		p.t.Errorf("there are %d functions, of %d acknowledged", found, len(code))
	}
	for name, code := range code {
		p.do("GET", "/api/cs/"+name, "").wants(p.t, 200, code)
		if n := p.versions(name); n != 1 {
			p.t.Errorf("%s has %d versions", name, n)
		}
	}
}

// versions is how many a function has had.
func (p *dispatcher) versions(name string) int {
	p.t.Helper()
	var fn api.ShownFunction
	if err := json.Unmarshal([]byte(p.do("GET", "/api/functions/"+name, "").Body), &fn); err != nil {
		p.t.Fatal(err)
	}
	return fn.Version.Number
}

// auditEndsWell fails the test unless the audit log can be read, and its end is
// what was done last.
func (p *dispatcher) auditEndsWell() {
	p.t.Helper()
	a := p.do("GET", "/api/audit?limit=10", "")
	lines := strings.Split(strings.TrimSpace(a.Body), "\n")
	var last faas.AuditEntry
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Outcome != "ok" || last.Name != "off" {
		p.t.Errorf("the audit log ends with %s (%v)", lines[len(lines)-1], err)
	}
}
