// Dispatcher is Flock of Birds: one program that turns code fragments into
// HTTP-callable functions, each in a sandbox of its own.
package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/cli"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// commands are the sub-commands.
type commands struct {
	Serve   serve      `cmd:"" help:"Run the dispatcher."`
	Audit   cli.Audit  `cmd:"" help:"Print the audit log: who changed what, and who was not let in."`
	Backup  backup     `cmd:"" help:"Write a backup of the database, while a dispatcher uses it or not."`
	Check   check      `cmd:"" help:"Read all of the database, or of a backup, and list what is wrong with it; exit with 1 if anything is."`
	Restore restore    `cmd:"" help:"Put a backup in the place of the database, which is kept beside it. No dispatcher may use that."`
	Secret  cli.Secret `cmd:"" help:"Set, list and delete secrets."`
	Health  cli.Health `cmd:"" help:"Ask a dispatcher whether it is ready; exit with 1 if it is not."`
	Token   cli.Token  `cmd:"" help:"Make, list and revoke tokens. They are those of the dispatcher of the data folder, running or not, unless FOB_URL names another."`
	Version version    `cmd:"" help:"Print the version."`
}

// version prints which dispatcher this is.
type version struct{}

// Run implements the command.
func (version) Run() error {
	b := build("")
	fmt.Printf("flock of birds dispatcher %s (commit %s, %s)\n", b.Version, b.Commit, b.Go)
	return nil
}

func main() {
	var c commands
	ctx := kong.Parse(&c,
		kong.Name("dispatcher"),
		kong.Description("Flock of Birds: a code fragment in, an HTTP-callable function in its own hardened container out."),
		kong.Vars{"data": defaultData(os.Getuid(), os.Getenv)},
		kong.UsageOnError(),
		kong.Writers(os.Stdout, telemetry.Neutral(os.Stderr)), // errors may quote what strangers said
	)
	ctx.FatalIfErrorf(ctx.Run(cli.Local(local), cli.AuditFile(auditFile)))
}
