package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// dockerd is a Docker engine of our own, to be harmed. It has its own folders, its data
// on a small disk, and a network namespace, so that the machine's firewall rules and
// bridges stay as they are.
type dockerd struct {
	*engine
	folder string
	disk   string // folder of its data
	net    *exec.Cmd
	cmd    *exec.Cmd
	ended  chan struct{}
	log    client.Log
	images []string // of the drivers; they have been loaded
}

// diskSize is enough for the driver images, and not for much more.
const diskSize = "1200M"

// startOwn starts the engine, once, with the driver images that the machine's engine
// has for the dispatcher.
func (t *trial) startOwn() (*dockerd, error) {
	if t.own != nil {
		return t.own, t.own.up()
	}
	images, err := t.driverImages()
	if err != nil {
		return nil, err
	}
	progress("%s: starting a Docker engine of our own, with %v", t.row.name, images)
	folder, err := os.MkdirTemp("/tmp", "fobd")
	if err != nil {
		return nil, err
	}
	o := &dockerd{folder: folder, disk: filepath.Join(folder, "data"), engine: newEngine(filepath.Join(folder, "docker.sock")), images: images}
	t.own = o
	file := filepath.Join(folder, "disk")
	for _, command := range [][]string{
		{"mkdir", o.disk},
		{"truncate", "--size", diskSize, file},
		{"mkfs.ext4", "-q", "-m", "0", file},
		{"mount", "-o", "loop", file, o.disk},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s (this takes root, and a machine that may mount)", strings.Join(command, " "), err, out)
		}
	}
	// The network namespace lives as long as this process.
	o.net = exec.Command("sleep", "infinity")
	o.net.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := o.net.Start(); err != nil {
		return nil, fmt.Errorf("a network namespace: %w (this takes root)", err)
	}
	if err := o.up(); err != nil {
		return nil, err
	}
	return o, copyImages(t.engine, o.engine, images...)
}

// driverImages has a dispatcher build its driver images on the machine's engine, and
// returns their names.
func (t *trial) driverImages() ([]string, error) {
	d, err := t.prepare(t.program, "i", "FOB_POOL=python=1,node=1")
	if err != nil {
		return nil, err
	}
	defer d.remove(t.engine)
	if err := d.boot(); err != nil {
		return nil, err
	}
	var names []string
	return names, d.Await(time.Minute, "its pools are full", func() bool {
		all, err := t.engine.containers(d.aviary)
		names = nil
		for _, c := range all {
			if name := t.engine.imageName(c.Image); name != "" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return err == nil && len(names) == 2
	})
}

// up starts the engine if it does not run, and waits until it answers. Sandboxes
// survive the engine's end, unless stopsThem is among the flags.
func (o *dockerd) up(flags ...string) error {
	if o.cmd != nil && !o.over() {
		return nil
	}
	if len(flags) == 0 {
		flags = []string{"--live-restore"}
	}
	args := append([]string{"--net=/proc/" + strconv.Itoa(o.net.Process.Pid) + "/ns/net", "dockerd",
		"--data-root", o.disk, "--exec-root", filepath.Join(o.folder, "exec"), "--pidfile", filepath.Join(o.folder, "pid"),
		"--host", o.host, "--containerd-namespace", "fob-faults", "--containerd-plugins-namespace", "fob-faults-plugins",
		"--config-file", filepath.Join(o.folder, "none.json")}, flags...)
	if err := os.WriteFile(filepath.Join(o.folder, "none.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	// A killed engine leaves these files, which keep the next one from starting.
	for _, name := range []string{"pid", "exec/containerd/containerd.pid"} {
		if err := os.Remove(filepath.Join(o.folder, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	o.cmd, o.ended = exec.Command("nsenter", args...), make(chan struct{})
	o.cmd.Stdout, o.cmd.Stderr = &o.log, &o.log
	if err := o.cmd.Start(); err != nil {
		return err
	}
	cmd, ended := o.cmd, o.ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := o.ask("GET", "/version", nil); err == nil {
			return nil
		}
		if o.over() || time.Now().After(deadline) {
			return fmt.Errorf("the engine of our own does not start: %s", o.log.Tail())
		}
	}
}

// stopsThem is the flag of an engine whose sandboxes end with it.
const stopsThem = "--live-restore=false"

func (o *dockerd) over() bool {
	select {
	case <-o.ended:
		return true
	default:
		return false
	}
}

// kill sends SIGKILL to the engine and its containerd.
func (o *dockerd) kill() {
	o.cmd.Process.Kill()
	<-o.ended
}

// stop sends SIGTERM.
func (o *dockerd) stop() error {
	o.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-o.ended:
		return nil
	case <-time.After(time.Minute):
		return errors.New("the engine of our own does not end within a minute")
	}
}

// fill takes all space on its disk until empty is called.
func (o *dockerd) fill() (empty func() error, err error) {
	path := filepath.Join(o.disk, "fill")
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size > 0; {
		if _, err := file.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 4
		} else if err != nil {
			return nil, err
		}
	}
	return func() error { return os.Remove(path) }, file.Sync()
}

// remove ends the engine with everything in it, and removes its disk.
func (o *dockerd) remove() {
	if o == nil {
		return
	}
	if o.cmd != nil && !o.over() {
		text, err := o.ask("GET", "/containers/json?all=1", nil)
		if err == nil {
			for _, id := range ids(text) {
				o.ask("DELETE", "/containers/"+id+"?force=1", nil)
			}
		}
		if err := o.stop(); err != nil {
			o.kill()
		}
	}
	if o.net != nil {
		o.net.Process.Kill()
		o.net.Wait()
	}
	for range 50 { // mounts in it go when its processes have ended
		mounts, _ := os.ReadFile("/proc/mounts")
		var below []string
		for line := range strings.Lines(string(mounts)) {
			if fields := strings.Fields(line); strings.HasPrefix(fields[1], o.folder+"/") {
				below = append(below, fields[1])
			}
		}
		if len(below) == 0 {
			break
		}
		slices.Reverse(below)
		for _, path := range below {
			syscall.Unmount(path, 0)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := os.RemoveAll(o.folder); err != nil {
		progress("what the engine of our own left cannot be removed: %v", err)
	}
}
