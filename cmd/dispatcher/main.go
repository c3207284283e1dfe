// Dispatcher is Flock of Birds: one program that turns code fragments into
// HTTP-callable functions, each in a sandbox of its own.
package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/cli"
)

// commands are the sub-commands.
type commands struct {
	Serve   serve      `cmd:"" help:"Run the dispatcher."`
	Secret  cli.Secret `cmd:"" help:"Set, list and delete secrets."`
	Health  cli.Health `cmd:"" help:"Ask a dispatcher whether it is ready; exit with 1 if it is not."`
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
	)
	ctx.FatalIfErrorf(ctx.Run(cli.Local(local)))
}
