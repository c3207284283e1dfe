package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// dispatcher is a dispatcher process. It is killed when this program ends.
type dispatcher struct {
	*client.Dispatcher
	t       *trial
	program string
	env     []string
	aviary  string
	data    string
	dying   atomic.Bool // it was told to end
}

// killAll sets the machine's clock right, ends the running processes, and clears their
// aviaries.
func (f *faults) killAll() {
	if wall := f.wall.Load(); wall != nil {
		if err := wall.end(); err != nil {
			progress("%v", err)
		}
	}
	f.living.Range(func(_, process any) bool {
		process.(*os.Process).Kill()
		return true
	})
	f.aviaries.Range(func(aviary, _ any) bool {
		if err := f.engine.clear(aviary.(string)); err != nil {
			progress("%v", err)
		}
		f.aviaries.Delete(aviary)
		return true
	})
}

// prepare returns a dispatcher that has not been started. It uses the machine's engine
// unless env says otherwise. env has settings as FOB_NAME=value.
func (t *trial) prepare(program, name string, env ...string) (*dispatcher, error) {
	d := &dispatcher{t: t, program: program, data: filepath.Join(t.folder, name), aviary: fmt.Sprintf("faults-%s-%06x", name, t.random.Uint32()>>8)}
	t.aviaries.Store(d.aviary, true)
	return d, d.prepare(append([]string{"FOB_DATA=" + d.data, "FOB_SOCKETS=" + filepath.Join(d.data, "s"), "FOB_AVIARY=" + d.aviary,
		"FOB_POOL=python=1,node=0", "FOB_POOL_MAX=0", "FOB_LOG_FORMAT=json"}, env...))
}

func (d *dispatcher) prepare(env []string) (err error) {
	d.env = env
	if d.Dispatcher, err = client.Prepare(d.program, env...); err != nil {
		return err
	}
	d.HTTP.Timeout = time.Minute
	return nil
}

// twin returns a second dispatcher for the data folder of the first, at an address of
// its own.
func (d *dispatcher) twin(env ...string) (*dispatcher, error) {
	other := &dispatcher{t: d.t, program: d.program, aviary: d.aviary, data: d.data}
	return other, other.prepare(slices.Concat(d.env, env))
}

// start starts it; extra is added to its environment this time.
func (d *dispatcher) start(extra ...string) error {
	d.dying.Store(false)
	if err := d.Start(extra...); err != nil {
		return err
	}
	process, ended := d.Process(), d.Ended()
	d.t.living.Store(process.Pid, process)
	go func() {
		<-ended
		d.t.living.Delete(process.Pid)
	}()
	return nil
}

// boot starts it and waits until it is ready.
func (d *dispatcher) boot(extra ...string) error {
	if err := d.start(extra...); err != nil {
		return err
	}
	return d.AwaitReady(5 * time.Minute) // it may have to build the driver images
}

// kill sends SIGKILL.
func (d *dispatcher) kill() {
	d.dying.Store(true)
	d.Kill()
	d.checkLog()
}

// stop sends SIGTERM. The sandboxes stay unless FOB_REMOVE_SANDBOXES says otherwise.
func (d *dispatcher) stop() error {
	if d.Over() {
		return nil
	}
	d.dying.Store(true)
	err := d.Terminate()
	d.checkLog()
	return err
}

// checkLog looks for panics in the log.
func (d *dispatcher) checkLog() {
	if trouble := d.Log.Trouble(); trouble != "" {
		d.t.violate("the dispatcher's log has: %.600s", trouble)
	}
}

// remove ends the dispatcher and removes everything that belongs to its aviary.
func (d *dispatcher) remove(e *engine) error {
	if !d.Over() {
		d.Signal(syscall.SIGCONT)
		d.kill()
	}
	d.HTTP.CloseIdleConnections()
	d.t.aviaries.Delete(d.aviary)
	return e.clear(d.aviary)
}
