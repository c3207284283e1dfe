package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/flockofbirds/fob/"

// mayImport is the import rule of docs/inside/architecture.md: which of our packages
// each of our packages may import. Tests may import more.
var mayImport = map[string][]string{
	"internal/faas":      {},
	"internal/buffer":    {},
	"internal/front":     {"internal/buffer"},
	"internal/durable":   {},
	"internal/journal":   {"internal/durable"},
	"internal/secret":    {"internal/durable", "internal/faas"},
	"internal/sandbox":   {"internal/buffer"},
	"internal/telemetry": {},
	"api":                {"internal/faas"},
	"drivers":            {},
	"web":                {},
	"internal/cli":       {"api", "internal/faas"},

	"internal/sandbox/docker":  {"internal/sandbox", "drivers"},
	"internal/sandbox/process": {"internal/sandbox", "drivers"},
	"internal/auth":            {"internal/faas"},
	"internal/store":           {"internal/durable", "internal/faas", "internal/store/survey"},
	"internal/store/survey":    {},
	"internal/audit":           {"internal/faas", "internal/journal"},
	"internal/egress":          {"internal/faas"},
	"internal/observe":         {"internal/faas", "internal/telemetry"},
	"internal/history":         {"internal/faas", "internal/journal"},
	"internal/trace":           {"internal/faas"},
	"internal/logs":            {"internal/faas", "internal/journal"},
	"internal/catalogue":       {"internal/faas"},
	"internal/dispatch":        {"internal/faas", "internal/buffer", "internal/egress", "internal/sandbox", "internal/telemetry"},
	"internal/httpapi":         {"internal/faas", "internal/buffer", "api", "internal/telemetry", "web"},

	"faults": {"api", "internal/client"},

	// What tests share.
	"internal/client":              {"api", "internal/faas"},
	"internal/pages":               {},
	"e2e":                          {},
	"drivers/contract":             {},
	"internal/sandbox/sandboxtest": {"internal/sandbox", "drivers/contract"},
	"internal/store/storetest":     {"internal/faas", "internal/store"},
	"internal/durable/powercut":    {},
}

// mayImportAll is the dispatcher, and programs are all that nobody imports.
var (
	mayImportAll = []string{"cmd/dispatcher"}
	programs     = []string{"cmd/dispatcher", "faults"}
)

func TestImportRule(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&pkg); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		name := strings.TrimPrefix(pkg.ImportPath, module)
		allowed, listed := mayImport[name]
		mayAll := slices.Contains(mayImportAll, name)
		if !listed && !mayAll {
			t.Errorf("%s is not in the import table: add it there and to docs/inside/architecture.md", name)
		}
		for _, imported := range pkg.Imports {
			short, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			if slices.Contains(programs, short) {
				t.Errorf("%s imports the program %s", name, short)
			}
			if !mayAll && !slices.Contains(allowed, short) {
				t.Errorf("%s imports %s, and may only import %v", name, short, allowed)
			}
		}
	}
	if seen < len(mayImport) {
		t.Errorf("go list found %d packages, and the table has %d", seen, len(mayImport))
	}
}
