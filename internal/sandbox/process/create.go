package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/sandbox"
)

const (
	// bootTime bounds how long a driver may take to accept connections.
	bootTime = 30 * time.Second

	// cleanUpTime bounds the cleaning up after a failure.
	cleanUpTime = 10 * time.Second
)

// Create implements sandbox.Engine. It records the spec's network, runtime and limits,
// but does not enforce them.
func (e *Engine) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.Check(ctx); err != nil {
		return nil, err
	}
	command, err := e.command(spec.Lang)
	if err != nil {
		return nil, err
	}
	made, err := recipe(spec.Lang, command)
	if err != nil {
		return nil, err
	}
	inst := e.newInstance(sandbox.NewID(), true, record{Spec: spec, Created: time.Now(), Token: sandbox.NewToken(), Recipe: made})
	inst.log = newLogReader(e.log.With().Str("sandbox", inst.id).Logger())
	e.add(inst)
	err = inst.start(command)
	if err == nil {
		err = inst.awaitDriver(ctx)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		return nil, errors.Join(err, inst.Remove(cleanUp))
	}
	inst.ready.Store(true)
	return inst, nil
}

// start starts the driver in a folder of its own.
func (i *instance) start(command []string) error {
	temp := i.e.path(i.id, tempFolder)
	for _, folder := range []string{temp, i.e.path(i.id, secretFolder)} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("making a sandbox's folder: %w", err)
		}
	}
	if err := i.update(func(*record) {}); err != nil {
		return fmt.Errorf("noting a sandbox: %w", err)
	}
	// The process inherits the lock and holds it as long as it lives.
	lock, err := os.OpenFile(i.e.path(i.id, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	output, err := i.log.open()
	if err != nil {
		return err
	}
	defer output.Close()
	// Before anything else the process writes its own ID, so that a process that holds
	// the lock can be found even if we are killed at this moment.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, i.e.path(i.id, pidFile)}, command...)...)
	cmd.Dir = temp
	cmd.Env = i.environment(temp)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead() {
		return fmt.Errorf("sandbox %s was removed while it was being created", i.id)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting a driver: %w", err)
	}
	i.pid = cmd.Process.Pid
	return cmd.Process.Release() // check waits for it
}

// environment returns the environment of a driver. It has nothing else of ours.
func (i *instance) environment(temp string) []string {
	env := []string{
		"FOB_SOCKET=" + i.e.path(i.id, sandbox.SocketName),
		"FOB_TOKEN=" + i.Token(),
		"FOB_TCP=" + loopback + ":0",
		"FOB_SECRETS=" + i.e.path(i.id, secretFolder),
		"HOME=" + temp,
		"TMPDIR=" + temp,
	}
	for _, name := range []string{"PATH", "LANG"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// awaitDriver waits until the driver accepts connections, and asks it for its port.
func (i *instance) awaitDriver(ctx context.Context) error {
	booting, cancel := context.WithTimeoutCause(ctx, bootTime, errors.New("the driver did not listen on its socket within "+bootTime.String()))
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		conn, err := i.Dial(booting)
		if err == nil {
			conn.Close()
			return i.learnPort(booting)
		}
		select {
		case <-i.done:
			i.log.drain()
			return fmt.Errorf("the driver ended with status %d before it was up; the end of its log: %s", i.exitCode(), i.log.tail())
		case <-booting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w; the end of its log: %s", context.Cause(booting), i.log.tail())
		case <-tick.C:
		}
	}
}

func (i *instance) exitCode() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exit.Code
}

// learnPort asks the driver for its TCP port.
func (i *instance) learnPort(ctx context.Context) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return i.Dial(ctx) },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://fob/_fob/health", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("asking a new driver for its health: %w", err)
	}
	defer response.Body.Close()
	var health struct {
		Port int `json:"port"`
	}
	if err := json.NewDecoder(response.Body).Decode(&health); err != nil {
		return fmt.Errorf("asking a new driver for its health: %w", err)
	}
	return i.update(func(r *record) { r.Port = health.Port })
}

// command returns the command that starts a language's driver. It unpacks the driver.
func (e *Engine) command(lang string) ([]string, error) {
	if !slices.Contains(drivers.Langs(), lang) {
		return nil, fmt.Errorf("there is no driver for the language %q: use one of %s", lang, strings.Join(drivers.Langs(), ", "))
	}
	command := slices.Clone(drivers.Command(lang))
	interpreter, err := exec.LookPath(command[0])
	if err != nil {
		return nil, fmt.Errorf("%s is not installed here: install it, or use the engine docker, which brings its own: %w", command[0], err)
	}
	command[0] = interpreter
	files, err := drivers.Files(lang)
	if err != nil {
		return nil, err
	}
	home, err := e.unpack(lang, files)
	if err != nil {
		return nil, fmt.Errorf("unpacking the %s driver: %w", lang, err)
	}
	for n, arg := range command {
		if fs.ValidPath(arg) {
			if _, err := fs.Stat(files, arg); err == nil {
				command[n] = filepath.Join(home, arg)
			}
		}
	}
	return command, nil
}

// recipe returns which driver and interpreter a command starts.
func recipe(lang string, command []string) (string, error) {
	interpreter, err := os.Stat(command[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s %d %d", drivers.Digest(lang, ""), command[0], interpreter.Size(), interpreter.ModTime().UnixNano()), nil
}

// unpack writes a driver's files to a folder that is named after their content, unless
// it exists, and returns the folder.
func (e *Engine) unpack(lang string, files fs.FS) (string, error) {
	e.unpacking.Lock()
	defer e.unpacking.Unlock()
	home := filepath.Join(e.dir, "driver-"+lang+"-"+drivers.Digest(lang, ""))
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	// The folder appears under its name complete or not at all, even if we are killed.
	half, err := os.MkdirTemp(e.dir, "unpacking-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(half)
	if err := os.CopyFS(half, files); err != nil {
		return "", err
	}
	err = os.Rename(half, home)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		err = nil // another Engine was faster
	}
	return home, err
}
