package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/pages"
)

// TestDocsBlocks looks at every block of every page: something is done with it.
func TestDocsBlocks(t *testing.T) {
	run := 0
	for _, page := range pages.Documents(t) {
		blocks := pages.Blocks(t, page)
		for i, b := range blocks {
			switch {
			case b.Runs():
				run++
			case b.Kind == "sh" && b.Note == "by-hand":
				byHand(t, b.At, b.Text)
			case b.IsFile():
				if !slices.ContainsFunc(blocks[i:], func(after pages.Block) bool { return after.Runs() && strings.Contains(after.Text, b.Note) }) {
					t.Errorf("%s: no command uses %s", b.At, b.Note)
				}
			case b.IsOutput() && i > 0 && blocks[i-1].Runs():
			case b.Kind == "json" && b.Note == "file":
				if !json.Valid([]byte(b.Text)) {
					t.Errorf("%s: this is not JSON", b.At)
				}
			case b.Note == "" && slices.Contains([]string{"text", "ini", "nginx", "caddy", "yaml"}, b.Kind):
			default:
				t.Errorf("%s: nothing is done with a block %s %s here", b.At, b.Kind, b.Note)
			}
		}
	}
	if run < 30 {
		t.Errorf("only %d blocks of commands are run", run)
	}
}

// byHand checks commands that cannot be run here, because they serve until they
// are stopped, change the machine, or test the tests. CI's own scripts run most.
func byHand(t *testing.T, at, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		line, _, _ := strings.Cut(strings.TrimSpace(line), "  #")
		words := slices.DeleteFunc(strings.Fields(line), func(word string) bool { return strings.HasPrefix(word, "FOB_") || strings.HasPrefix(word, "OTEL_") })
		command := strings.Join(words, " ")
		var err error
		switch {
		case strings.HasPrefix(command, "make ") && len(words) > 1: // TestDocsNames knows the targets
		case strings.HasPrefix(command, "go test "):
			if path := words[len(words)-1]; strings.HasPrefix(path, "./") && path != "./..." {
				_, err = os.Stat(filepath.Join(pages.Root(t), path))
			}
		case command == "docker compose up" || command == "docker compose --profile watch up" || strings.HasPrefix(command, "docker ps --filter "):
		case strings.HasPrefix(command, "docker compose -f docker-compose.yml -f jaeger.yaml "):
		case command == "apt-get install runsc": // scripts/gvisor-check needs it
		case command == "BRIDGE=fob-+" || strings.HasPrefix(command, "iptables -I "): // closeEgress runs them
		case slices.Contains(words, "/dispatcher"): // in a container
			_, err = newParser(t).Parse(words[slices.Index(words, "/dispatcher")+1:])
		case strings.HasPrefix(command, "build/dispatcher "), strings.HasPrefix(command, "fob "):
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
