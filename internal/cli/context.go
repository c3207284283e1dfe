package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"

	"github.com/flockofbirds/fob/internal/faas"
)

// contexts are the dispatchers that a user works with, by the names that the user gave
// them. They are a file that only the user can read, because tokens are in it.
type contexts struct {
	Current  string                  `json:"current,omitempty"`
	Contexts map[string]knownContext `json:"contexts"`
}

// knownContext is a dispatcher and the token for it.
type knownContext struct {
	URL   string `json:"url"`
	Token string `json:"token,omitempty"`
}

// contextsFile returns the path of the contexts. It fails for a user without a home.
func contextsFile() (string, error) {
	folder, err := os.UserConfigDir()
	return filepath.Join(folder, "fob", "contexts.json"), err
}

// readContexts reads the contexts. It refuses a file that others can read or change.
func readContexts() (*contexts, error) {
	all := &contexts{Contexts: map[string]knownContext{}}
	path, err := contextsFile()
	if err != nil {
		return all, nil // whoever has no home has no contexts
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the contexts: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has tokens in it, and others may use it (mode %03o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	if err := json.NewDecoder(file).Decode(all); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w; mend or remove it", path, err)
	}
	if all.Contexts == nil {
		all.Contexts = map[string]knownContext{}
	}
	return all, nil
}

// changeContexts changes the contexts. Commands that run at the same time change them one
// after the other, so that none undoes what another did.
func changeContexts(change func(all *contexts) error) error {
	path, err := contextsFile()
	if err != nil {
		return fmt.Errorf("the contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path)) // the file itself is replaced
	if err != nil {
		return err
	}
	defer folder.Close() // and so unlocks it
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", folder.Name(), err)
	}
	all, err := readContexts()
	if err == nil {
		err = change(all)
	}
	if err != nil {
		return err
	}
	return all.write(path)
}

// write replaces the file.
func (all *contexts) write(path string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".contexts-") // has mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	encoder := json.NewEncoder(file)
	encoder.SetIndent("", "  ")
	if err := errors.Join(encoder.Encode(all), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// named returns a context, or an error that says which there are.
func (all *contexts) named(name string) (*knownContext, error) {
	if c, ok := all.Contexts[name]; ok {
		return &c, nil
	}
	known := "there are none: fob context set NAME URL makes one"
	if len(all.Contexts) > 0 {
		known = "there are " + strings.Join(slices.Sorted(maps.Keys(all.Contexts)), ", ")
	}
	return nil, fmt.Errorf("there is no context %q; %s", name, known)
}

// currentContext returns the context of that name, or without a name the one in use. It
// returns nil if none is in use.
func currentContext(name string) (*knownContext, error) {
	all, err := readContexts()
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = all.Current
	}
	if name == "" {
		return nil, nil
	}
	return all.named(name)
}

// Context has the commands about contexts.
type Context struct {
	List   ContextList   `cmd:"" help:"List the contexts; * is the one in use."`
	Set    ContextSet    `cmd:"" help:"Name a dispatcher, keep the token for it, and use it from now on."`
	Use    ContextUse    `cmd:"" help:"Use a context from now on; without NAME, none but the data folder."`
	Delete ContextDelete `cmd:"" help:"Forget a context."`
}

// ContextList lists the contexts.
type ContextList struct {
	JSON bool `name:"json" help:"Print a line of JSON for each."`
}

// Run implements the command. It shows no token.
func (c *ContextList) Run() error {
	all, err := readContexts()
	if err != nil {
		return err
	}
	out := newScreen(os.Stdout)
	t := &table{header: []string{"", "NAME", "URL", "TOKEN"}}
	for _, name := range slices.Sorted(maps.Keys(all.Contexts)) {
		one := all.Contexts[name]
		used, token := "", "no"
		if name == all.Current {
			used = "*"
		}
		if one.Token != "" {
			token = "yes"
		}
		if c.JSON {
			out.line(map[string]any{"name": name, "url": one.URL, "token": one.Token != "", "current": name == all.Current})
		}
		t.add(used, name, one.URL, token)
	}
	if !c.JSON {
		out.print(t)
	}
	return out.Flush()
}

// ContextSet makes or changes a context.
type ContextSet struct {
	Name  string `arg:"" complete:"context" help:"Name of the context: letters, digits, - and _."`
	URL   string `arg:"" name:"url" help:"The dispatcher, such as https://fob.example.com."`
	Token string `env:"FOB_TOKEN" placeholder:"TOKEN" help:"Token for it (a terminal is asked, else standard input is read)."`
}

// Run implements the command. A token is better not an argument, because all users of
// the machine can see arguments.
func (c *ContextSet) Run() error {
	if err := faas.CheckName(c.Name); err != nil {
		return fmt.Errorf("%q is not a name for a context: use letters, digits, - and _", c.Name)
	}
	base, err := baseURL(c.URL)
	if err != nil {
		return fmt.Errorf("%s is not a URL like http://127.0.0.1:9999", c.URL)
	}
	if c.Token == "" {
		if c.Token, err = readToken(); err != nil {
			return err
		}
	}
	err = changeContexts(func(all *contexts) error {
		all.Contexts[c.Name] = knownContext{URL: base, Token: c.Token}
		all.Current = c.Name
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s from now on, and in use\n", c.Name, base)
	return nil
}

// readToken reads a token from a terminal, without showing it, or from standard input.
func readToken() (string, error) {
	var text []byte
	var err error
	if isatty.IsTerminal(os.Stdin.Fd()) {
		text, err = askToken()
	} else {
		text, err = io.ReadAll(io.LimitReader(os.Stdin, 4096))
	}
	token := strings.TrimSpace(string(text))
	if err == nil && strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", errors.New("this is no token: it has spaces or other characters that no token has")
	}
	return token, err
}

// askToken asks for a token at the terminal. The terminal stops showing what is typed before it
// asks, for who pastes at once would else see the token.
func askToken() ([]byte, error) {
	fd := int(os.Stdin.Fd())
	former, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	defer term.Restore(fd, former)
	screen := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stderr}, "")
	text, err := screen.ReadPassword("token (empty for none): ")
	if err == io.EOF { // Ctrl-C or Ctrl-D
		err = errors.New("no token was given, and nothing is changed")
	}
	return []byte(text), err
}

// ContextUse changes which context is in use.
type ContextUse struct {
	Name string `arg:"" optional:"" complete:"context" help:"Name of the context (none)."`
}

// Run implements the command.
func (c *ContextUse) Run() error {
	said := "no context is in use: commands ask the data folder's dispatcher"
	err := changeContexts(func(all *contexts) error {
		if c.Name != "" {
			one, err := all.named(c.Name)
			if err != nil {
				return err
			}
			said = c.Name + " is in use: " + one.URL
		}
		all.Current = c.Name
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println(said)
	return nil
}

// ContextDelete forgets a context.
type ContextDelete struct {
	Name string `arg:"" complete:"context" help:"Name of the context."`
}

// Run implements the command.
func (c *ContextDelete) Run() error {
	err := changeContexts(func(all *contexts) error {
		if _, err := all.named(c.Name); err != nil {
			return err
		}
		delete(all.Contexts, c.Name)
		if all.Current == c.Name {
			all.Current = ""
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s is forgotten\n", c.Name)
	return nil
}
