package main

import (
	"bufio"
	"context"
	"encoding/json"
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

// block is a fenced block. Its kind and note are the words behind the fence.
// Readers see only the effect of the first:
//
//	sh               is run; a json, text or http block that follows is its output, where … stands for anything
//	sh soon          is run until the output is that
//	sh by-hand       is not run: see byHand
//	python, js FILE  is the file that commands after it read
//	json file        is a file of JSON
//	text             elsewhere is a drawing, or what something looks like
//	ini              is a unit file
//	nginx, caddy, yaml  are for proxies: TestProxies runs the first two
type block struct {
	at               string // page and line
	kind, note, text string
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)(?: ([^\\s`]+))?\n(.*?)^```\n")

func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	text := readFile(t, page)
	var blocks []block
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		line := 1 + strings.Count(text[:m[0]], "\n")
		b := block{at: fmt.Sprintf("%s, line %d", page, line), kind: text[m[2]:m[3]], text: text[m[6]:m[7]]}
		if m[4] >= 0 {
			b.note = text[m[4]:m[5]]
		}
		blocks = append(blocks, b)
	}
	if fences := strings.Count(text, "```"); fences != 2*len(blocks) {
		t.Fatalf("%s has %d fences, and %d blocks were read: each needs a kind", page, fences, len(blocks))
	}
	if indented := regexp.MustCompile(`\n\n {4}.*`).FindString(anyFence.ReplaceAllString(text, "")); indented != "" {
		t.Errorf("%s has a block without a fence: %q", page, indented)
	}
	return blocks
}

// runs reports whether the block is commands that are run.
func (b block) runs() bool {
	return b.kind == "sh" && (b.note == "" || b.note == "soon")
}

// isFile reports whether the block is a file that commands read.
func (b block) isFile() bool {
	return (b.kind == "python" || b.kind == "js") && b.note != ""
}

// isOutput reports whether the block is what a command prints.
func (b block) isOutput() bool {
	return b.note == "" && (b.kind == "json" || b.kind == "text" || b.kind == "http")
}

// TestDocsBlocks looks at every block of every page: something is done with it.
func TestDocsBlocks(t *testing.T) {
	run := 0
	for _, page := range documents(t) {
		blocks := blocksOf(t, page)
		for i, b := range blocks {
			switch {
			case b.runs():
				run++
			case b.kind == "sh" && b.note == "by-hand":
				byHand(t, b.at, b.text)
			case b.isFile():
				if !slices.ContainsFunc(blocks[i:], func(after block) bool { return after.runs() && strings.Contains(after.text, b.note) }) {
					t.Errorf("%s: no command uses %s", b.at, b.note)
				}
			case b.isOutput() && i > 0 && blocks[i-1].runs():
			case b.kind == "json" && b.note == "file":
				if !json.Valid([]byte(b.text)) {
					t.Errorf("%s: this is not JSON", b.at)
				}
			case b.note == "" && slices.Contains([]string{"text", "ini", "nginx", "caddy", "yaml"}, b.kind):
			default:
				t.Errorf("%s: nothing is done with a block %s %s here", b.at, b.kind, b.note)
			}
		}
	}
	if run < 30 {
		t.Errorf("only %d blocks of commands are run", run)
	}
}

// TestDockerPages does what each page tells its reader to do, from top to
// bottom in a shell of its own, with the real clients and a dispatcher of its
// own on a real engine.
func TestDockerPages(t *testing.T) {
	for _, page := range documents(t) {
		blocks := blocksOf(t, page)
		if !slices.ContainsFunc(blocks, block.runs) {
			continue
		}
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			aviary := testAviary(t)
			r := boot(t, func(c *Config) { c.Engine, c.Aviary = "docker", aviary })
			follow(t, r.URL, blocks)
		})
	}
}

// follow runs the blocks of a page against the dispatcher at url.
func follow(t *testing.T, url string, blocks []block) {
	local := strings.NewReplacer("http://127.0.0.1:9999", url)
	sh := newShell(t)
	for i, b := range blocks {
		if b.isFile() {
			if err := os.WriteFile(filepath.Join(sh.dir, b.note), []byte(b.text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !b.runs() {
			continue
		}
		want := ""
		if i+1 < len(blocks) && blocks[i+1].isOutput() {
			want = local.Replace(blocks[i+1].text)
		}
		for patience := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			got, status := sh.run(local.Replace(b.text))
			if status == 0 && like(want, got) {
				break
			}
			if b.note != "soon" || time.Now().After(patience) {
				t.Fatalf("%s\n%s\nended with %d and printed\n%s\nnot\n%s\non standard error: %s", b.at, b.text, status, got, want, sh.complaints())
			}
		}
	}
}

// like compares what a command printed with what it should print, where …
// stands for anything. A command whose output is not shown may print what it
// likes, but no error.
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
// are stopped, change the machine, or test the tests. CI's own scripts run most.
func byHand(t *testing.T, at, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		line, _, _ := strings.Cut(strings.TrimSpace(line), "  #")
		words := slices.DeleteFunc(strings.Fields(line), func(word string) bool { return strings.HasPrefix(word, "FOB_") })
		command := strings.Join(words, " ")
		var err error
		switch {
		case strings.HasPrefix(command, "make ") && len(words) > 1: // TestDocsNames knows the targets
		case strings.HasPrefix(command, "go test "):
			if path := words[len(words)-1]; strings.HasPrefix(path, "./") && path != "./..." {
				_, err = os.Stat(filepath.Join(root, path))
			}
		case command == "docker compose up" || strings.HasPrefix(command, "docker ps --filter "):
		case command == "apt-get install runsc": // scripts/gvisor-check needs it
		case command == "BRIDGE=fob-+" || strings.HasPrefix(command, "iptables -I "): // closeEgress runs them
		case slices.Contains(words, "/dispatcher"): // in a container
			_, err = newParser(t).Parse(words[slices.Index(words, "/dispatcher")+1:])
		case strings.HasPrefix(command, "build/dispatcher "):
			if words[len(words)-1] == "--help" {
				words = words[:len(words)-1]
			}
			_, err = newParser(t).Parse(words[1:])
		default:
			err = fmt.Errorf("it is not among the commands that may be left to the reader")
		}
		if err != nil {
			t.Errorf("%s: %s: %v", at, line, err)
		}
	}
}
