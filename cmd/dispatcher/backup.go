package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/flockofbirds/fob/internal/cli"
	"github.com/flockofbirds/fob/internal/store"
)

// databaseName is the database's file in the data folder.
const databaseName = "fob.db"

// backup is the command that writes a copy of the database.
type backup struct {
	cli.Remote
	File string `arg:"" help:"File to write; - is standard output."`
}

// Help implements kong's HelpProvider.
func (*backup) Help() string {
	return `FILE appears once it is complete, checked and on the disk, and replaces an older one. It holds functions, code, hashes of tokens and sealed secrets,
but not the key that seals them.`
}

// Run implements the command.
func (c *backup) Run(local cli.Local) error {
	if c.File == "-" && isatty.IsTerminal(os.Stdout.Fd()) {
		return errors.New("a backup is not for a terminal: name a file, or redirect standard output")
	}
	return fetchBackup(&c.Remote, local, func(r io.Reader) error {
		if c.File == "-" {
			_, err := io.Copy(os.Stdout, r)
			return err
		}
		report, err := store.SaveBackup(c.File, r)
		if err != nil {
			return err
		}
		fmt.Printf("%s has %v\n", c.File, report)
		return nil
	})
}

// fetchBackup asks a dispatcher for a backup and hands it to use.
func fetchBackup(remote *cli.Remote, local cli.Local, use func(io.Reader) error) error {
	if path := filepath.Join(remote.Data, databaseName); remote.URL == "" {
		// Otherwise a new database would be created, only to be backed up.
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database %s: name another data folder with FOB_DATA, or a dispatcher with FOB_URL", path)
		}
	}
	return remote.Ask(local, http.MethodGet, "/api/backup", nil, func(r *http.Response) error { return use(r.Body) })
}

// check is the command that reads and checks a whole database.
type check struct {
	cli.Remote
	File string `arg:"" optional:"" help:"Backup to read (the data folder's database, through its dispatcher if one runs)."`
}

// Run implements the command.
func (c *check) Run(local cli.Local) error {
	path := c.File
	if path == "" {
		path = filepath.Join(c.Data, databaseName)
	}
	report, err := (*store.Report)(nil), store.ErrInUse
	if c.File == "" && c.URL == "" {
		if _, err := ownData(c.Data); err != nil {
			return err
		}
	}
	if c.File != "" || c.URL == "" {
		report, err = store.Check(path)
	}
	if errors.Is(err, store.ErrInUse) && c.File == "" {
		path = "what the dispatcher handed out"
		report, err = c.ofRunning(local)
	}
	if err != nil {
		return err
	}
	if len(report.Problems) == 0 {
		fmt.Printf("%s is good: %v\n", path, report)
		return nil
	}
	return fmt.Errorf("%s has problems:\n  %s", path, strings.Join(report.Problems, "\n  "))
}

// ofRunning checks a backup of the dispatcher that runs.
func (c *check) ofRunning(local cli.Local) (report *store.Report, err error) {
	folder := c.Data // has room for it, which /tmp may not
	if c.URL != "" {
		folder = ""
	}
	err = fetchBackup(&c.Remote, local, func(r io.Reader) error {
		report, err = store.CheckCopy(r, folder)
		return err
	})
	return report, err
}

// restore is the command that puts a backup in the place of the database.
type restore struct {
	Data string `env:"FOB_DATA" default:"${data}" placeholder:"FOLDER" help:"Data folder to restore to (${default})."`
	File string `arg:"" help:"Backup to restore; - is standard input."`
}

// Run implements the command.
func (c *restore) Run() error {
	data, err := ownData(c.Data)
	if err != nil {
		return err
	}
	from, name := os.Stdin, "from standard input"
	if c.File != "-" {
		if from, err = os.Open(c.File); err != nil {
			return err
		}
		defer from.Close()
		name = c.File
	}
	done, err := store.Restore(from, name, filepath.Join(data, databaseName), time.Now())
	if errors.Is(err, store.ErrInUse) {
		return fmt.Errorf("a dispatcher uses %s: stop it, and those on standby, first", data)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s has now %v\n", data, &done.Report)
	fmt.Println("tokens are those of the backup, also what was revoked since: dispatcher token list shows them")
	if done.Kept != "" {
		fmt.Printf("what it had is in %s\n", done.Kept)
	} else {
		fmt.Println("if the dispatcher that the backup is of still runs on the same engine, start this one with an FOB_AVIARY of its own: else it is refused")
	}
	return nil
}
