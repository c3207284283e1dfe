package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/process"
)

// prepareAgain is the pause after driver images could not be built.
const prepareAgain = 10 * time.Second

// engineAgain is the pause between two looks for an engine that is away.
const engineAgain = time.Second

// newEngine returns the engine that the settings name. It waits until a Docker engine
// answers.
func (p *Program) newEngine(ctx context.Context, aviary string) (sandbox.Engine, error) {
	if p.cfg.Engine == "process" {
		engine, err := process.New(process.Config{Dir: p.cfg.Sockets, Aviary: aviary, Log: p.log})
		if err != nil {
			return nil, err // not engine, err: a nil *process.Engine in a sandbox.Engine is not nil
		}
		return engine, nil
	}
	owner, err := folderIdentity(p.cfg.Data)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	waits := false
	for {
		engine, err := docker.New(ctx, docker.Config{
			Aviary:    aviary,
			SocketDir: p.cfg.Sockets,
			BaseImage: p.cfg.BaseImage,
			Runtimes:  p.cfg.runtimes(),
			Owner:     owner,
			Place:     p.cfg.Data + " on " + host,
			Log:       p.log,
		})
		switch {
		case err == nil:
			if waits {
				p.log.Info().Msg("the engine answers")
			}
			return engine, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, sandbox.ErrNoEngine) || errors.Is(err, fs.ErrPermission): // waiting mends neither
			return nil, err
		case !waits:
			waits = true
			p.log.Error().Err(err).Msg("the engine is not there yet: waiting for it")
			p.api.Unready(faas.Errorf(faas.CodeStarting, "the engine that makes sandboxes cannot be reached, and the dispatcher waits for it; its log says more").After(engineAgain))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(engineAgain):
		}
	}
}

// prepare makes sure that sandboxes can be created, and then calls ready. Until it
// succeeds, calls are answered by sandboxes of an earlier start.
func (p *Program) prepare(ctx context.Context, ready func()) {
	for told := false; ; told = true {
		p.api.Unready(faas.Errorf(faas.CodeStarting, "driver images are being prepared").After(time.Second))
		err := p.dispatcher.Prepare(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		if !told {
			p.log.Error().Err(err).Dur("again_in", prepareAgain).Msg("sandboxes cannot be made yet; trying again")
		}
		p.api.Unready(faas.Errorf(faas.CodeStarting, "driver images could not be prepared; the dispatcher's log says why").After(prepareAgain))
		select {
		case <-ctx.Done():
			return
		case <-time.After(prepareAgain):
		}
	}
	p.api.Unready(nil)
	p.log.Info().Str("url", p.URL()).Msg("ready")
	ready()
}
