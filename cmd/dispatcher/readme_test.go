package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// block is a fenced block. Its kind and note are the words behind the fence,
// of which a reader sees the effect of the first alone:
//
//	sh               is run; a json, text or http block that follows is its output, where … stands for anything
//	sh soon          the same, until the output is that
//	sh by-hand       is not run here: see byHand
//	python, js FILE  is the file that commands after it read
//	ini              is a unit file, whose FOB_ settings are checked like all others
//	text drawing     is a drawing
type block struct {
	line             int // of README.md
	kind, note, text string
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)(?: ([^\\s`]+))?\n(.*?)^```\n")

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text := readFile(t, "README.md")
	var blocks []block
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		b := block{line: 1 + strings.Count(text[:m[0]], "\n"), kind: text[m[2]:m[3]], text: text[m[6]:m[7]]}
		if m[4] >= 0 {
			b.note = text[m[4]:m[5]]
		}
		blocks = append(blocks, b)
	}
	if fences := strings.Count(text, "```"); fences != 2*len(blocks) {
		t.Fatalf("README.md has %d fences, and %d blocks were read: each needs a kind", fences, len(blocks))
	}
	if indented := regexp.MustCompile(`\n\n {4}.*`).FindString(text); indented != "" {
		t.Errorf("README.md has a block without a fence: %q", indented)
	}
	return blocks
}

// TestDockerReadme does what README.md tells its reader to do, in one shell
// from top to bottom, with the real clients on a real engine.
func TestDockerReadme(t *testing.T) {
	aviary := testAviary(t)
	r := boot(t, func(c *Config) { c.Engine, c.Aviary = "docker", aviary })
	local := strings.NewReplacer("http://127.0.0.1:9999", r.URL)
	sh := newShell(t)
	blocks := readmeBlocks(t)
	ran := 0
	for i, b := range blocks {
		name := fmt.Sprintf("README.md, line %d", b.line)
		switch {
		case b.kind == "sh" && b.note == "by-hand":
			byHand(t, name, b.text)
		case b.kind == "sh" && (b.note == "" || b.note == "soon"):
			ran++
			want := ""
			if i+1 < len(blocks) && isOutput(blocks[i+1]) {
				want = local.Replace(blocks[i+1].text)
			}
			for patience := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				got, status := sh.run(local.Replace(b.text))
				if status == 0 && like(want, got) {
					break
				}
				if b.note != "soon" || time.Now().After(patience) {
					t.Fatalf("%s\n%s\nended with %d and printed\n%s\nnot\n%s\non standard error: %s", name, b.text, status, got, want, sh.complaints())
				}
			}
		case (b.kind == "python" || b.kind == "js") && b.note != "":
			if err := os.WriteFile(filepath.Join(sh.dir, b.note), []byte(b.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(blocks[i:], func(b block) bool { return b.kind == "sh" && strings.Contains(b.text, blocks[i].note) }) {
				t.Errorf("%s: no command uses %s", name, b.note)
			}
		case isOutput(b) && i > 0 && blocks[i-1].kind == "sh" && blocks[i-1].note != "by-hand":
		case b.kind == "ini" || b.kind == "text" && b.note == "drawing":
		default:
			t.Errorf("%s: nothing is known to be done with a block %s %s here", name, b.kind, b.note)
		}
	}
	if ran < 10 {
		t.Errorf("only %d blocks of commands were run", ran)
	}
}

func isOutput(b block) bool {
	return b.note == "" && (b.kind == "json" || b.kind == "text" || b.kind == "http")
}

// like compares what a command printed with what it should, where … stands for
// anything. A command of which no output is shown may print what it likes,
// but no error.
func like(want, got string) bool {
	if want == "" {
		return !strings.Contains(got, `"retryable"`)
	}
	parts := strings.Split(strings.TrimSpace(want), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*?") + `$`).MatchString(strings.TrimSpace(got))
}

// shell is a bash that keeps its variables from one block to the next.
type shell struct {
	t      *testing.T
	dir    string // where it begins
	in     *os.File
	out    *bufio.Reader
	stderr *os.File
}

// On a terminal HTTPie takes no body from it, and the prompt stands on a new
// line; without one it takes all of standard input. curl draws its progress
// where there is no terminal.
const preamble = `
http() { [ /dev/stdin -ef /dev/null ] && set -- --ignore-stdin "$@"; command http "$@" || return; echo; }
`

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, ".curlrc"), []byte("silent\nshow-error\nwrite-out = \"\\n\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CURL_HOME="+s.dir)
	var err error
	// A file, for that can be read while the shell still writes it.
	if s.stderr, err = os.Create(filepath.Join(s.dir, ".stderr")); err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = s.stderr
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, cmd.Stdin = in, stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(stdout)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	t.Cleanup(func() {
		in.Close()
		cancel()
		cmd.Wait() // it may have been killed
		s.stderr.Close()
	})
	fmt.Fprint(in, preamble)
	return s
}

// run runs commands and returns what they print and how the last one ends.
func (s *shell) run(commands string) (output string, status int) {
	s.t.Helper()
	const end = '\036' // which nothing prints
	fmt.Fprintf(s.in, "{\n%s\n} </dev/null\nprintf '\\036%%d\\036' $?\n", commands)
	output, err := s.out.ReadString(end)
	if err == nil {
		var text string
		if text, err = s.out.ReadString(end); err == nil {
			status, err = strconv.Atoi(strings.Trim(text, string(end)))
		}
	}
	if err != nil {
		s.t.Fatalf("%s\nended the shell: %v: %s", commands, err, s.complaints())
	}
	return strings.ReplaceAll(strings.Trim(output, string(end)), "\r", ""), status
}

// complaints is what went to standard error so far.
func (s *shell) complaints() string {
	content, err := os.ReadFile(s.stderr.Name())
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// byHand checks commands that cannot be run here, because they serve until they
// are stopped or test the tests: CI's own scripts run the like.
func byHand(t *testing.T, name, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		line, _, _ := strings.Cut(strings.TrimSpace(line), "  #")
		words := slices.DeleteFunc(strings.Fields(line), func(word string) bool { return strings.HasPrefix(word, "FOB_") })
		command := strings.Join(words, " ")
		var err error
		switch {
		case strings.HasPrefix(command, "make ") && len(words) > 1: // TestDocsNames knows the targets
		case command == "docker compose up" || strings.HasPrefix(command, "docker ps --filter "):
		case strings.HasPrefix(command, "build/dispatcher "):
			if words[len(words)-1] == "--help" {
				words = words[:len(words)-1]
			}
			_, err = newParser(t).Parse(words[1:])
		default:
			err = fmt.Errorf("it is none of the commands that may be left to the reader")
		}
		if err != nil {
			t.Errorf("%s: %s: %v", name, line, err)
		}
	}
}
