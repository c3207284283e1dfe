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

// prepare makes a dispatcher that is yet to be started. env has settings of
// its own, as FOB_NAME=value. Its pools do not grow, so that it is known how
// many blank sandboxes are to be waited for.
func (b *bench) prepare(env ...string) (*dispatcher, error) {
	data, err := os.MkdirTemp("/tmp", "fobbench") // short, for the sockets
	if err != nil {
		return nil, err
	}
	settings := []string{"FOB_DATA=" + data, "FOB_SOCKETS=" + filepath.Join(data, "s"), "FOB_POOL_MAX=1", "FOB_REMOVE_SANDBOXES=true"}
	d, err := client.Prepare(b.program, append(settings, env...)...)
	return &dispatcher{Dispatcher: d, data: data}, err
}

// start prepares one and starts it.
func (b *bench) start(env ...string) (*dispatcher, error) {
	d, err := b.prepare(env...)
	if err != nil {
		return nil, err
	}
	return d, d.start()
}

// start runs it and waits until it is ready. A new one asks for a token from then on,
// as one does that is used in earnest.
func (d *dispatcher) start() error {
	begun := time.Now()
	err := d.Start()
	if err == nil {
		err = d.AwaitReady(5 * time.Minute) // the driver images may have to be built
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

// calling is how a load calls a function.
func (d *dispatcher) calling(name string) fhttp.HTTPOptions {
	options := fhttp.HTTPOptions{URL: d.URL + "/api/call/" + name}
	options.AddAndValidateExtraHeader("Authorization: Bearer " + d.Token) // fails for what is no header
	return options
}

// remove stops it and takes its data folder away. It is for defer: whoever
// wants to know how it ended has stopped it before.
func (d *dispatcher) remove() {
	d.Terminate()
	d.HTTP.CloseIdleConnections()
	os.RemoveAll(d.data)
}

// settle waits until so many blank sandboxes are there, and no other at all.
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

// socket is where the driver listens that runs a function, in one sandbox.
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
