// Dispatcher is Flock of Birds: one program that turns code fragments into
// HTTP-callable functions, each in a sandbox of its own.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/cli"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// commands are the program's sub-commands.
type commands struct {
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`

	Serve      serve          `cmd:"" help:"Run the dispatcher."`
	List       cli.List       `cmd:"" help:"List the functions."`
	Show       cli.Show       `cmd:"" help:"Show a function: its settings, versions and sandboxes."`
	Deploy     cli.Deploy     `cmd:"" help:"Create functions from files, or add versions to them; what is unchanged is left alone."`
	Code       cli.Code       `cmd:"" help:"Print a function's code."`
	Call       cli.Call       `cmd:"" help:"Call a function, and print its answer as it comes."`
	Rename     cli.Rename     `cmd:"" help:"Give a function another name; its ID, versions and history stay."`
	Delete     cli.Delete     `cmd:"" help:"Delete functions with all their versions."`
	Calls      cli.Calls      `cmd:"" help:"Print what became of calls, the newest first."`
	Logs       cli.Logs       `cmd:"" help:"Print what functions wrote, the newest lines last."`
	Top        cli.Top        `cmd:"" help:"Show what functions do now: calls, errors, times and sandboxes."`
	Open       cli.Open       `cmd:"" help:"Open the dispatcher's page in a browser, and print its address."`
	Context    cli.Context    `cmd:"" help:"Name the dispatchers that you work with, and keep the tokens for them."`
	Audit      cli.Audit      `cmd:"" help:"Print the audit log: who changed what, and who was refused."`
	Backup     backup         `cmd:"" help:"Write a backup of the database, with or without a running dispatcher."`
	Check      check          `cmd:"" help:"Read the whole database, or a whole backup, and list what is wrong with it; exit with 1 if anything is."`
	Restore    restore        `cmd:"" help:"Replace the database with a backup, and keep the old one beside it. Stop every dispatcher that uses it first."`
	Secret     cli.Secret     `cmd:"" help:"Set, list and delete secrets."`
	Health     cli.Health     `cmd:"" help:"Ask the data folder's dispatcher, or the one at FOB_URL, whether it is ready; exit with 1 if it is not."`
	Token      cli.Token      `cmd:"" help:"Make, list and revoke tokens of the data folder's dispatcher, running or not, or of the one at FOB_URL."`
	Completion cli.Completion `cmd:"" help:"Print what bash, zsh or fish needs to complete command lines."`
	Complete   cli.Complete   `cmd:"" hidden:"" help:"Print what the last word of a command line may become."`
	Version    version        `cmd:"" help:"Print the version."`
	Help       help           `cmd:"" help:"Explain a command."`
}

// newCommands returns the sub-commands. Some have flags that are not fields.
func newCommands() *commands { return &commands{Deploy: cli.NewDeploy()} }

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
	b, program := build(""), calledAs(os.Args[0])
	data := defaultData(os.Getuid(), os.Getenv)
	parser := kong.Must(newCommands(),
		kong.Name(program),
		kong.Description("Flock of Birds turns code fragments into functions that you call over HTTP, each in a hardened container of its own."),
		kong.Vars{
			"data":    data,
			"version": fmt.Sprintf("flock of birds dispatcher %s (commit %s, %s)", b.Version, b.Commit, b.Go),
		},
		kong.Writers(os.Stdout, stderr),
	)
	ctx, err := parser.Parse(args)
	if err == nil {
		err = settle(ctx, data)
	}
	if err == nil {
		err = ctx.Run(cli.Local(local), cli.Running(attach), cli.AuditFile(auditFile))
	}
	if err == nil {
		return 0
	}
	if parse, ok := errors.AsType[*kong.ParseError](err); ok {
		command := program
		if at := parse.Context.Selected(); at != nil {
			command = at.FullPath()
		}
		fmt.Fprintf(stderr, "%s: error: %v; see %s --help\n", program, err, command)
		for _, name := range quotedSettings(os.Environ()) {
			fmt.Fprintf(stderr, "%s: %s\n", program, quotedAdvice(name))
		}
		return parse.ExitCode()
	}
	return cli.Report(stderr, program, err)
}

// calledAs returns the name of this program by which it was started. It has two.
func calledAs(path string) string {
	if filepath.Base(path) == "fob" {
		return "fob"
	}
	return "dispatcher"
}

// settle has the command that was chosen decide which dispatcher it asks, if it asks one.
func settle(ctx *kong.Context, data string) error {
	if remote, ok := ctx.Selected().Target.Addr().Interface().(interface{ Settle(string) error }); ok {
		return remote.Settle(data)
	}
	return nil
}
