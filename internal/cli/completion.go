package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// completionPatience is how long a shell waits for the names of functions.
const completionPatience = 2 * time.Second

// Completion is the command that prints what a shell needs to complete command lines.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" complete:"bash zsh fish" help:"The shell: bash, zsh or fish."`
}

// completions are the scripts, by shell. They have the program itself complete.
var completions = map[string]string{
	"bash": `_fob() {
	local IFS=$'\n'
	COMPREPLY=($("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _fob fob dispatcher
`,
	"zsh": `#compdef fob dispatcher
_fob() {
	local -a found
	found=("${(@f)$("${words[1]}" complete -- "${(@)words[2,$CURRENT]}" 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then
		compadd -- "${found[@]}"
	else
		_files
	fi
}
if [[ "${funcstack[1]}" == _fob ]]; then
	_fob "$@"
else
	compdef _fob fob dispatcher
fi
`,
	"fish": `function __fob_complete
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	set -l found ($before[1] complete -- $before[2..-1] "$current" 2>/dev/null)
	if test -n "$found"
		printf '%s\n' $found
	else
		__fish_complete_path "$current"
	end
end
complete -c fob -f -a '(__fob_complete)'
complete -c dispatcher -f -a '(__fob_complete)'
`,
}

// Run implements the command.
func (c *Completion) Run() error {
	_, err := fmt.Print(completions[c.Shell])
	return err
}

// Complete is the command that shells ask: it prints what the last word may become, a
// line each. It prints nothing where a file may stand.
type Complete struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"The words of the command line, without the program."`
}

// Run implements the command. It complains about nothing, because nobody would read it.
func (c *Complete) Run(k *kong.Kong, running Running, vars kong.Vars) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	line := readLine(k.Model.Node, words[:len(words)-1])
	last := words[len(words)-1]
	if last == "=" { // bash breaks words there
		last = ""
	}
	for _, one := range line.candidates(last, func(kind, prefix string) []string { return line.lookUp(kind, prefix, running, vars["data"]) }) {
		if strings.HasPrefix(one, last) {
			fmt.Println(harmless(one, ""))
		}
	}
	return nil
}

// halfLine is a command line as far as it is written.
type halfLine struct {
	node       *kong.Node        // the command
	positional int               // how many arguments it has
	flag       *kong.Flag        // whose value comes next, or nil
	values     map[string]string // of flags
}

// readLine reads the words of a command line that are complete.
func readLine(node *kong.Node, words []string) *halfLine {
	l := &halfLine{node: node, values: map[string]string{}}
	for _, word := range words {
		switch {
		case word == "=": // as bash breaks --flag=value
		case l.flag != nil:
			l.values[l.flag.Name] = word
			l.flag = nil
		case strings.HasPrefix(word, "-") && word != "-":
			name, value, given := strings.Cut(word, "=")
			if f := l.find(name); f != nil && given {
				l.values[f.Name] = value
			} else if f != nil && !f.IsBool() {
				l.flag = f
			}
		default:
			i := slices.IndexFunc(l.node.Children, func(n *kong.Node) bool { return n.Name == word })
			if i >= 0 {
				l.node = l.node.Children[i]
			} else {
				l.positional++
			}
		}
	}
	return l
}

// find returns the flag that a word names, or nil.
func (l *halfLine) find(word string) *kong.Flag {
	for _, group := range l.node.AllFlags(false) {
		for _, f := range group {
			if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

// candidates returns the words that may complete last, which the user has begun.
func (l *halfLine) candidates(last string, lookUp func(kind, prefix string) []string) (all []string) {
	switch {
	case l.flag != nil:
		return lookUp(l.flag.Tag.Get("complete"), last)
	case strings.HasPrefix(last, "-"):
		for _, group := range l.node.AllFlags(true) {
			for _, f := range group {
				all = append(all, "--"+f.Name)
			}
		}
		return all
	case len(l.node.Children) > 0:
		for _, child := range l.node.Children {
			if !child.Hidden {
				all = append(all, child.Name)
			}
		}
		return all
	case len(l.node.Positional) == 0:
		return nil
	}
	argument := l.node.Positional[min(l.positional, len(l.node.Positional)-1)]
	if l.positional >= len(l.node.Positional) && !argument.IsCumulative() {
		return nil
	}
	return lookUp(argument.Tag.Get("complete"), last)
}

// lookUp returns the names of a kind that begin with prefix. Other kinds are lists of
// words.
func (l *halfLine) lookUp(kind, prefix string, running Running, data string) (names []string) {
	switch kind {
	case "context":
		if all, err := readContexts(); err == nil {
			names = slices.Sorted(maps.Keys(all.Contexts))
		}
	case "function":
		given := func(flag, variable string) string {
			if value, ok := l.values[flag]; ok {
				return value
			}
			return os.Getenv(variable)
		}
		remote := &Remote{URL: given("url", "FOB_URL"), Token: given("token", "FOB_TOKEN"), Context: l.values["context"], Data: given("data", "FOB_DATA")}
		if remote.Settle(data) != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
		defer cancel()
		_ = remote.with(running, func(k *link) error {
			return k.functions(ctx, prefix, func(fn *api.Function) error {
				names = append(names, fn.Name)
				return nil
			})
		})
	default:
		names = strings.Fields(kind)
	}
	slices.Sort(names)
	// A shell puts them on a command line as they are: no stranger's $(…) may get there.
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return faas.CheckName(name) != nil })
}
