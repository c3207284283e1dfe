package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// serve runs the dispatcher.
type serve struct {
	Config `group:"Tuning:"` // but for what says otherwise

	LogLevel  string `name:"log-level" group:"Everyday:" env:"FOB_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Least level to log: debug (a line a call), info, warn or error."`
	LogFormat string `name:"log-format" group:"Tuning:" env:"FOB_LOG_FORMAT" default:"auto" enum:"auto,json,text" help:"json, text, or auto: text on a terminal, else json."`
}

// Help implements kong's HelpProvider.
func (*serve) Help() string {
	return `Every setting can be given as a flag or in the environment; a flag wins.
Logs go to standard error; when nobody reads them there, lines are dropped, and nothing else happens. SIGTERM, Ctrl-C, SIGQUIT or the end
of the terminal (SIGHUP) stops accepting, finishes the calls in flight and leaves the sandboxes for the next start; a second one stops at once,
and SIGHUP does not count.

A function's own settings are given when it is registered; GET /api/openapi.yaml says more. Those that most functions need are:

` + functionSettings()
}

// functionSettings lists the everyday settings of functions.
func functionSettings() string {
	var list strings.Builder
	for _, s := range faas.SettingTable {
		if s.Everyday {
			fmt.Fprintf(&list, "  %-12s %s (%s)\n", s.Name, s.Doc, s.Range)
		}
	}
	return list.String()
}

// Run implements the command.
func (s *serve) Run(k *kong.Context) error {
	out := telemetry.NewOutput(os.Stderr)
	defer out.Close()
	log, err := telemetry.NewLogger(out, s.LogFormat, s.LogLevel)
	if err != nil {
		return err
	}
	for _, name := range strangeSettings(k.Model.Leaves(true), os.Environ()) {
		log.Warn().Msgf("%s is in the environment, but there is no such setting; dispatcher serve --help lists them", name)
	}
	for _, name := range quotedSettings(os.Environ()) {
		log.Warn().Msg(quotedAdvice(name))
	}
	program, err := New(s.Config, log)
	if err != nil {
		return err
	}
	// No core of this process, which has had secrets in its memory, nor of what it
	// starts: 1 byte is too few for a file, and unlike 0 keeps the kernel from handing
	// it to a program that the machine has for cores.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1, Max: 1}); err != nil {
		log.Warn().Err(err).Msg("core dumps cannot be switched off")
	}
	program.metrics.WatchLog(out)
	ctx, stop := untilSignal()
	defer stop()
	return program.Run(ctx, func() { go greet(program) }) // who may not read it
}

// untilSignal returns a context that ends with the first signal that is to end the
// process. A second one ends it at once.
//
// SIGHUP counts neither as the first nor as the second: at the end of a terminal it
// comes twice, from the shell and from the kernel, and SIGTERM comes with it, before
// or after, at the end of a login. One that was ignored at
// our start, as nohup has it, stays so, and so does SIGQUIT. SIGPIPE, for a reader of
// our output that has gone, is no reason to end.
func untilSignal() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(context.Background())
	// What is notified, to nobody, does not end the process. To ignore it would have
	// the drivers of the engine process ignore it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		asked := false // by a signal that counts
		for s := range signals {
			stop()
			if s == syscall.SIGHUP {
				continue
			}
			if asked {
				signal.Reset(s)
				syscall.Kill(os.Getpid(), s.(syscall.Signal))
			}
			asked = true
		}
	}()
	return ctx, stop
}

// greet shows, once ready, what to paste.
func greet(p *Program) {
	url := p.cfg.PublicURL
	if url == "" {
		url = p.URL()
	}
	fmt.Print(greeting(url))
}

// greeting is what README.md begins with, too.
func greeting(url string) string {
	return fmt.Sprintf(`
Flock of Birds is ready at %[1]s. Make a function, and call it:

  curl -X PUT --data 'def callme(name="world"): return "Hello " + name' %[1]s/api/functions/hello
  curl '%[1]s/api/call/hello?name=Ada'

`, url)
}

// strangeSettings returns the FOB_ variables in environ that no flag reads: a
// misspelt setting is not to be passed over in silence.
func strangeSettings(commands []*kong.Command, environ []string) []string {
	known := []string{}
	for _, command := range commands {
		for _, flag := range command.Flags {
			known = append(known, flag.Envs...)
		}
	}
	var strange []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "FOB_") && !slices.Contains(known, name) {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	return strange
}

// quotedSettings returns the FOB_ variables in environ whose values have quotes
// around them: not every reader of env files takes those away, Docker's least of all.
func quotedSettings(environ []string) []string {
	var quoted []string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if n := len(value); strings.HasPrefix(name, "FOB_") && n > 1 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
			quoted = append(quoted, name)
		}
	}
	slices.Sort(quoted)
	return quoted
}

// quotedAdvice is what to do about one of them.
func quotedAdvice(name string) string {
	return name + " has quotes around its value, and they count: Docker's --env-file, for one, does not take them away; write it without"
}
