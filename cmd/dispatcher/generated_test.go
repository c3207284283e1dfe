package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/pages"
)

var update = flag.Bool("update", false, "have TestGenerated write what it compares")

// settingsPage is where users find all settings.
const settingsPage = "docs/reference/settings.md"

// TestGenerated compares the parts of documents that say what settings, error codes
// and routes there are with their declarations. With -update it writes them.
func TestGenerated(t *testing.T) {
	for path, generate := range map[string]func(string) string{
		"api/openapi.yaml": func(text string) string { return openAPICodes(openAPISettings(text)) },
		settingsPage:       settingsTables,
		"SECURITY.md":      accessTable,
	} {
		text := pages.Read(t, path)
		want := generate(text)
		switch {
		case text == want:
		case *update:
			if err := os.WriteFile(filepath.Join(pages.Root(t), path), []byte(want), 0o644); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("%s differs from what is declared; go test ./cmd/dispatcher -run TestGenerated -update writes it", path)
		}
	}
}

// openAPISettings fills in what stands between # settings: PART and # settings: end.
func openAPISettings(document string) string {
	part := regexp.MustCompile(`(?ms)^( *)# settings: (\w+)\n.*?^ *# settings: end$`)
	return part.ReplaceAllStringFunc(document, func(old string) string {
		m := part.FindStringSubmatch(old)
		indent, name := m[1], m[2]
		var all strings.Builder
		for i := range faas.SettingTable {
			for line := range strings.Lines(openAPISetting(&faas.SettingTable[i], name)) {
				all.WriteString(indent + line)
			}
		}
		return fmt.Sprintf("%s# settings: %s\n%s%s# settings: end", indent, name, all.String(), indent)
	})
}

// openAPISetting is what a part of the document says about a setting, in whole
// lines of YAML.
func openAPISetting(s *faas.Setting[faas.Settings], part string) string {
	component := ""
	for word := range strings.SplitSeq(s.Name, "_") {
		component += strings.ToUpper(word[:1]) + word[1:]
	}
	component = strings.NewReplacer("Cpus", "CPUs", "Cors", "CORS").Replace(component)
	preset, example := s.Default, s.Example
	switch s.Type {
	case "string":
		preset, example = strconv.Quote(preset), strconv.Quote(example)
	case "object", "array":
		example = exampleJSON(s)
	}
	about := strconv.Quote(sentence(s.Doc+", "+s.Range, s.More))
	switch part {
	case "references":
		return fmt.Sprintf("- $ref: '#/components/parameters/%s'\n", component)
	case "parameters":
		if s.Type == "object" || s.Type == "array" { // as text
			return fmt.Sprintf("%s: {name: %s, in: query, description: %s, schema: {type: string, default: ''}, example: %q}\n", component, s.Name, about, s.Example)
		}
		return fmt.Sprintf("%s: {name: %s, in: query, schema: {$ref: '#/components/schemas/%[1]s'}}\n", component, s.Name)
	case "properties":
		return fmt.Sprintf("%s: {$ref: '#/components/schemas/%s'}\n", s.Name, component)
	case "required":
		return fmt.Sprintf("- %s\n", s.Name)
	case "schemas":
		limits := ""
		for line := range strings.Lines(s.Schema) {
			limits += "  " + strings.TrimSuffix(line, "\n") + "\n"
		}
		return fmt.Sprintf("%s:\n  type: %s\n%s  default: %s\n  description: %s\n  example: %s\n", component, s.Type, limits, preset, about, example)
	}
	return "# there is no such part\n"
}

// sentence makes sentences of a clause and what follows it.
func sentence(clause, more string) string {
	return strings.TrimSpace(strings.ToUpper(clause[:1]) + clause[1:] + ". " + more)
}

// exampleJSON is a setting's example as JSON shows it.
func exampleJSON(s *faas.Setting[faas.Settings]) string {
	example, _ := apply(s.Name, s.Example, faas.DefaultSettings())
	text, _ := json.Marshal(example)
	var members map[string]json.RawMessage
	_ = json.Unmarshal(text, &members)
	return string(members[s.Name])
}

// settingsTables fills in the two tables of settings of a page.
func settingsTables(page string) string {
	for kind, everyday := range map[string]bool{"everyday setting": true, "setting for tuning": false} {
		var rows strings.Builder
		for _, s := range faas.SettingTable {
			if s.Everyday != everyday {
				continue
			}
			preset := s.Default
			if preset == "" {
				preset = " "
			}
			fmt.Fprintf(&rows, "| `%s` | `%s` | %s | %s |\n", s.Name, preset, s.Range, sentence(s.Doc, s.More))
		}
		page = withRows(page, "| "+kind+" | default | range | what it does |\n|---|---|---|---|\n", rows.String())
	}
	return page
}

// withRows returns a page whose table with that header has these rows.
func withRows(page, header, rows string) string {
	before, rest, found := strings.Cut(page, header)
	if !found {
		return page + "there is no table " + header
	}
	for strings.HasPrefix(strings.TrimLeft(rest, " "), "|") {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	return before + header + rows + rest
}

// openAPICodes fills in the table of errors, and the codes of the schema Problem.
func openAPICodes(document string) string {
	var rows, codes strings.Builder
	for _, c := range faas.CodeTable {
		fmt.Fprintf(&rows, "    | %d | `%s` | %s |\n", c.Status, c.Code, c.When)
		fmt.Fprintf(&codes, "            - %s\n", c.Code)
	}
	document = withRows(document, "    | status | code | when |\n    |---|---|---|\n", rows.String())
	list := regexp.MustCompile(`(?m)(^        code:\n(?:          .*\n)*          enum:\n)(?:            - .*\n)+`)
	return list.ReplaceAllString(document, "${1}"+codes.String())
}

// accessColumns are the callers that the table of SECURITY.md tells apart: those
// without a good token, and those whose token grants that scope alone.
var accessColumns = []string{"open", "invoke", "read", "deploy", "admin"}

// accessTable fills in what each route asks of them.
func accessTable(page string) string {
	var rows strings.Builder
	for _, rt := range httpapi.Routes() {
		fmt.Fprintf(&rows, "| `%s %s` | %s |\n", rt.Method, rt.Path, strings.Join(accessRow(&rt), " | "))
	}
	return withRows(page, "| route | "+strings.Join(accessColumns, " | ")+" |\n|---|---|---|---|---|---|\n", rows.String())
}

func accessRow(rt *httpapi.Route) []string {
	row := []string{rt.Asks("")}
	for _, scope := range accessColumns[1:] {
		row = append(row, rt.Asks(faas.Scope(scope)))
	}
	return row
}
