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

// serve is the command that runs the dispatcher.
type serve struct {
	Config `group:"Tuning:"` // except fields that name another group

	LogLevel  string `name:"log-level" group:"Everyday:" env:"FOB_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Lowest level to log: debug (a line for each call), info, warn or error."`
	LogFormat string `name:"log-format" group:"Tuning:" env:"FOB_LOG_FORMAT" default:"auto" enum:"auto,json,text" help:"json, text, or auto: text on a terminal, json otherwise."`
}

// Help implements kong's HelpProvider.
func (*serve) Help() string {
	return `Give each setting as a flag or in the environment; a flag wins.
The log goes to standard error. If nobody reads it, the dispatcher drops lines and goes on. After SIGTERM, Ctrl-C, SIGQUIT or the end of the
terminal (SIGHUP) it refuses new calls, finishes those in flight, and leaves the sandboxes for the next start. A second signal other than SIGHUP
ends it at once.

With OTEL_EXPORTER_OTLP_ENDPOINT it sends traces to an OpenTelemetry collector; the other standard OTEL_ variables count too.

Give a function its own settings when you register it; GET /api/openapi.yaml lists them all. Most functions need only some of these:

` + functionSettings()
}

// functionSettings lists the everyday settings of functions, for the help.
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
	// This process, which has had secrets in memory, must leave no core file, nor must
	// what it starts. A limit of 1 byte is too small for a file; unlike 0, it also
	// keeps the kernel from piping the core to a program.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1, Max: 1}); err != nil {
		log.Warn().Err(err).Msg("core dumps cannot be switched off")
	}
	program.metrics.WatchLog(out)
	ctx, stop := untilSignal()
	defer stop()
	return program.Run(ctx, func() { go greet(program) }) // whoever reads it may be slow
}

// untilSignal returns a context that ends with the first signal that asks the process
// to end. A second one ends the process at once.
//
// SIGHUP counts neither as the first nor as the second. When a terminal closes, it
// comes twice, from the shell and from the kernel; when a login ends, SIGTERM comes
// with it, before or after. If SIGHUP was ignored when we started, as under nohup, it
// stays ignored; so does SIGQUIT. SIGPIPE, which says that the reader of our output is
// gone, does not end the process.
func untilSignal() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(context.Background())
	// A signal that is notified, even to nobody, does not end the process. Ignoring it
	// would also make the drivers of the process engine ignore it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		asked := false // a signal that counts has come
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

// greet prints, once the program is ready, what to paste into a shell.
func greet(p *Program) {
	url := p.cfg.PublicURL
	if url == "" {
		url = p.URL()
	}
	fmt.Print(greeting(url))
}

// greeting is the text that README.md begins with, too.
func greeting(url string) string {
	return fmt.Sprintf(`
Flock of Birds is ready at %[1]s. Make a function, and call it:

  curl -X PUT --data 'def callme(name="world"): return "Hello " + name' %[1]s/api/functions/hello
  curl '%[1]s/api/call/hello?name=Ada'

`, url)
}

// strangeSettings returns the FOB_ variables in environ that no flag reads, so that a
// misspelt setting is reported.
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

// quotedSettings returns the FOB_ variables in environ whose values are in quotes. Some
// readers of env files, such as Docker's, leave the quotes in place.
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

// quotedAdvice says what to do about such a variable.
func quotedAdvice(name string) string {
	return name + " has quotes around its value, and they count: Docker's --env-file, for one, does not take them away; write it without"
}
