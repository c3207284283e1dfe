package docker

import (
	"context"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/events"
)

const (
	// replayed is how far back a new event stream begins. The engine answers a moment
	// before it records events itself. Seeing an event twice does no harm.
	replayed = 10 * time.Second

	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// watch follows the engine's events until ctx ends. When the stream breaks, it opens
// another.
func (e *Engine) watch(ctx context.Context) {
	pause := firstPause
	for {
		begun := time.Now()
		err := e.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > longestPause { // the stream was stable
			pause = firstPause
		}
		// Only for debugging: whoever needs the engine reports that it is away.
		e.log.Debug().Err(err).Dur("retry_ms", pause).Msg("the Docker engine's events broke off")
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// follow opens one event stream and reads it to its end.
func (e *Engine) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wanted := ours(e.config.Aviary)
	wanted.Add("type", string(events.ContainerEventType))
	for _, action := range []events.Action{events.ActionDie, events.ActionOOM, events.ActionDestroy} {
		wanted.Add("event", string(action))
	}
	messages, failed := e.api.Events(ctx, events.ListOptions{
		Since:   strconv.FormatInt(time.Now().Add(-replayed).Unix(), 10),
		Filters: wanted,
	})
	// Find out what ended while nobody listened.
	if _, err := e.reconcile(ctx); err != nil {
		return err
	}
	for {
		select {
		case m := <-messages:
			e.hear(m)
		case err := <-failed:
			return err
		}
	}
}

func (e *Engine) hear(m events.Message) {
	inst, known := e.get(m.Actor.Attributes[labelSandbox])
	if !known || inst.container() != m.Actor.ID { // an image made of a sandbox copies its labels
		return
	}
	switch m.Action {
	case events.ActionOOM:
		inst.outOfMem()
	case events.ActionDie:
		code, err := strconv.Atoi(m.Actor.Attributes["exitCode"])
		if err != nil {
			code = codeUnknown
		}
		inst.died(code)
	case events.ActionDestroy:
		inst.died(codeUnknown)
	}
}
