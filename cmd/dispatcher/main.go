// Dispatcher is Flock of Birds: one program that turns code fragments into
// HTTP-callable functions, each in a sandbox of its own.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/cli"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// commands are the program's sub-commands.
type commands struct {
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`

	Serve   serve      `cmd:"" help:"Run the dispatcher."`
	Audit   cli.Audit  `cmd:"" help:"Print the audit log: who changed what, and who was refused."`
	Backup  backup     `cmd:"" help:"Write a backup of the database, with or without a running dispatcher."`
	Check   check      `cmd:"" help:"Read the whole database, or a whole backup, and list what is wrong with it; exit with 1 if anything is."`
	Restore restore    `cmd:"" help:"Replace the database with a backup, and keep the old one beside it. Stop every dispatcher that uses it first."`
	Secret  cli.Secret `cmd:"" help:"Set, list and delete secrets."`
	Health  cli.Health `cmd:"" help:"Ask the data folder's dispatcher, or the one at FOB_URL, whether it is ready; exit with 1 if it is not."`
	Token   cli.Token  `cmd:"" help:"Make, list and revoke tokens of the data folder's dispatcher, running or not, or of the one at FOB_URL."`
	Version version    `cmd:"" help:"Print the version."`
	Help    help       `cmd:"" help:"Explain a command."`
}

// version is the command that prints which dispatcher this is.
type version struct{}

// Run implements the command.
func (version) Run(vars kong.Vars) error {
	fmt.Println(vars["version"])
	return nil
}

// help is the command that does what --help does.
type help struct {
	Command []string `arg:"" optional:"" help:"Command to explain (all)."`
}

// Run implements the command.
func (h *help) Run(k *kong.Context) error {
	_, err := k.Kong.Parse(append(h.Command, "--help")) // ends the process
	return err
}

func main() {
	os.Exit(execute(os.Args[1:]))
}

// execute runs a command and returns the process's exit status.
func execute(args []string) (status int) {
	// Errors may quote text from strangers.
	stderr := telemetry.Neutral(os.Stderr)
	b := build("")
	parser := kong.Must(&commands{},
		kong.Name("dispatcher"),
		kong.Description("Flock of Birds turns code fragments into functions that you call over HTTP, each in a hardened container of its own."),
		kong.Vars{
			"data":    defaultData(os.Getuid(), os.Getenv),
			"version": fmt.Sprintf("flock of birds dispatcher %s (commit %s, %s)", b.Version, b.Commit, b.Go),
		},
		kong.Writers(os.Stdout, stderr),
	)
	ctx, err := parser.Parse(args)
	if err == nil {
		err = ctx.Run(cli.Local(local), cli.Running(attach), cli.AuditFile(auditFile))
	}
	if err == nil {
		return 0
	}
	if parse, ok := errors.AsType[*kong.ParseError](err); ok {
		command := "dispatcher"
		if at := parse.Context.Selected(); at != nil {
			command = at.FullPath()
		}
		fmt.Fprintf(stderr, "dispatcher: error: %v; see %s --help\n", err, command)
		for _, name := range quotedSettings(os.Environ()) {
			fmt.Fprintf(stderr, "dispatcher: %s\n", quotedAdvice(name))
		}
		return parse.ExitCode()
	}
	fmt.Fprintf(stderr, "dispatcher: error: %v\n", err)
	return 1
}
