package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fortio.org/fortio/fhttp"

	"github.com/flockofbirds/fob/internal/client"
)

// dispatcher is a dispatcher process with a data folder of its own.
type dispatcher struct {
	*client.Dispatcher
	data string
	boot time.Duration // of the last start, from exec to ready
}

// prepare returns a dispatcher that has not been started. env has settings as
// FOB_NAME=value. Its pools do not grow, so the number of blank sandboxes to wait for
// is known.
func (b *bench) prepare(env ...string) (*dispatcher, error) {
	data, err := os.MkdirTemp("/tmp", "fobbench") // short, because of the sockets
	if err != nil {
		return nil, err
	}
	settings := []string{"FOB_DATA=" + data, "FOB_SOCKETS=" + filepath.Join(data, "s"), "FOB_POOL_MAX=1", "FOB_REMOVE_SANDBOXES=true"}
	d, err := client.Prepare(b.program, append(settings, env...)...)
	return &dispatcher{Dispatcher: d, data: data}, err
}

// start prepares a dispatcher and starts it.
func (b *bench) start(env ...string) (*dispatcher, error) {
	d, err := b.prepare(env...)
	if err != nil {
		return nil, err
	}
	return d, d.start()
}

// start starts the dispatcher and waits until it is ready. After its first start it has
// a token, as a dispatcher in real use does.
func (d *dispatcher) start() error {
	begun := time.Now()
	err := d.Start()
	if err == nil {
		err = d.AwaitReady(5 * time.Minute) // it may have to build the driver images
	}
	d.boot = time.Since(begun)
	if err == nil && d.Token == "" {
		err = d.makeToken()
	}
	if err != nil {
		d.remove()
	}
	return err
}

func (d *dispatcher) makeToken() error {
	made, err := d.MakeToken("bench", "", "admin")
	if err != nil {
		return err
	}
	d.Token = made.Secret
	return nil
}

// calling returns how a load calls a function.
func (d *dispatcher) calling(name string) fhttp.HTTPOptions {
	options := fhttp.HTTPOptions{URL: d.URL + "/api/call/" + name}
	options.AddAndValidateExtraHeader("Authorization: Bearer " + d.Token) // fails only for a malformed header
	return options
}

// remove stops the dispatcher and deletes its data folder. It is for defer; to know how
// the dispatcher ended, stop it first.
func (d *dispatcher) remove() {
	d.Terminate()
	d.HTTP.CloseIdleConnections()
	os.RemoveAll(d.data)
}

// settle waits until there are so many blank sandboxes and no others.
func (d *dispatcher) settle(blank int) error {
	return d.Await(2*time.Minute, fmt.Sprintf("there are %d blank sandboxes and no other", blank), func() bool {
		values, err := d.Metrics()
		if err != nil {
			return false
		}
		found, others := values.Sandboxes()
		return found == blank && others == 0
	})
}

// socket returns the driver's socket of a function that has one sandbox.
func (d *dispatcher) socket(ref string) (string, error) {
	ids, err := d.Running(ref)
	if err != nil {
		return "", err
	}
	if len(ids) != 1 {
		return "", fmt.Errorf("%s runs in %d sandboxes, not in one", ref, len(ids))
	}
	paths, err := filepath.Glob(filepath.Join(d.data, "s", "*"+ids[0], "fob.sock"))
	if err != nil || len(paths) != 1 {
		return "", fmt.Errorf("sandbox %s has no socket in %s", ids[0], d.data)
	}
	return paths[0], nil
}
