package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completers have a shell complete the words in $1, …, with the script of the program in
// PATH, and print what it proposes.
var completers = map[string][]string{
	"bash": {"bash", "--noprofile", "--norc", "-c", `source <(fob completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fob; printf '%s\n' "${COMPREPLY[@]}"`, "bash"},
	"zsh":  {"zsh", "-f", "-c", `compdef() { : }; _files() { : }; compadd() { shift; print -l -- "$@" }; source <(fob completion zsh); words=("$@"); CURRENT=$#; _fob`, "zsh"},
	"fish": {"fish", "--no-config", "-c", `fob completion fish | source; complete -C (string join ' ' -- $argv)`},
}

// TestCompletion: each shell completes commands, flags, functions and contexts.
func TestCompletion(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	for _, name := range []string{"alpha", "alps", "beta"} {
		s.write(name+".py", "def callme(): return 1\n")
	}
	s.does("deploy", "alpha.py", "alps.py", "beta.py")
	s.does("context", "set", "prod", "fob.example.com", "--token", "x")
	s.does("context", "set", "proof", "fob.example.com", "--token", "x")
	for shell, program := range completers {
		for line, want := range map[string]string{
			"fob ca":                    "call calls",
			"fob context ":              "delete list set use",
			"fob context use pro":       "prod proof",
			"fob call al":               "alpha alps",
			"fob delete alpha be":       "beta",
			"fob calls --limit 3 al":    "alpha alps",
			"fob list --context pro":    "prod proof",
			"fob deploy --memo":         "--memory",
			"fob completion ":           "bash fish zsh",
			"fob show --json al":        "alpha alps",
			"fob show alpha al":         "",
			"fob call --url x:1 al":     "",
			"fob call alpha@1 name=":    "",
			"fob help com":              "",
			"fob deploy --memory 1MB -": "--context --cors",
		} {
			if shell == "fish" && want == "" { // it has no stub for files
				continue
			}
			words := strings.Split(line, " ")
			cmd := exec.Command(program[0], append(slices.Clone(program[1:]), words...)...)
			cmd.Env = append(s.command().Env, "PATH="+filepath.Dir(s.command().Path)+":/usr/bin:/bin", "TERM=dumb", "HOME="+s.dir)
			cmd.Dir = t.TempDir()
			out, err := cmd.Output()
			got := strings.Fields(string(out))
			slices.Sort(got)
			ok := slices.Equal(got, strings.Fields(want))
			if strings.HasSuffix(line, " -") { // there are many flags
				ok = !slices.ContainsFunc(strings.Fields(want), func(flag string) bool { return !slices.Contains(got, flag) })
			}
			if !ok {
				t.Errorf("%s completes %q with %q, want %s (%v)", shell, line, got, want, err)
			}
		}
	}
}
