package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
)

// root is the repository, as seen from where tests of this package run.
const root = "../.."

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// table returns the rows of the Markdown table with that header, cells
// without their code marks.
func table(t *testing.T, path string, header ...string) [][]string {
	t.Helper()
	text := readFile(t, path)
	_, rest, found := strings.Cut(text, "\n| "+strings.Join(header, " | ")+" |\n|"+strings.Repeat("---|", len(header))+"\n")
	if !found {
		t.Fatalf("%s has no table | %s |", path, strings.Join(header, " | "))
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != len(header) {
			t.Fatalf("%s: %q has %d cells, not %d", path, line, len(cells), len(header))
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// code is what a cell shows as code, all of it.
func code(cell string) string {
	inner, _ := strings.CutPrefix(cell, "`")
	inner, ok := strings.CutSuffix(inner, "`")
	if !ok {
		return "not code: " + cell
	}
	return inner
}

func TestDocsFunctionSettings(t *testing.T) {
	rows := table(t, "docs/reference/settings.md", "setting", "default", "range", "what it does")
	if len(rows) != len(faas.SettingTable) {
		t.Fatalf("the table has %d rows, and there are %d settings", len(rows), len(faas.SettingTable))
	}
	for i, row := range rows {
		setting := faas.SettingTable[i]
		name, value, limits := code(row[0]), code(row[1]), row[2]
		if name != setting.Name {
			t.Errorf("row %d is about %s, not %s", i, name, setting.Name)
			continue
		}
		defaults := faas.DefaultSettings()
		if got, err := (faas.SettingsPatch{name: value}).Apply(defaults); err != nil || got != defaults {
			t.Errorf("%s=%s is not the default: the defaults are %+v", name, value, defaults)
		}
		if !strings.HasSuffix(setting.Doc, limits) {
			t.Errorf("%s: the range is %q, and its help says %q", name, limits, setting.Doc)
		}
		m := regexp.MustCompile(`^(\S+) to (\S+)$`).FindStringSubmatch(limits)
		if m == nil {
			continue
		}
		low, high := m[1], m[2]
		wide := faas.DefaultSettings()
		wide.MinScale, wide.MaxScale = 0, 1000
		for text, fits := range map[string]bool{low: true, high: true, beyond(t, low, -1): false, beyond(t, high, 1): false} {
			if _, err := (faas.SettingsPatch{name: text}).Apply(wide); (err == nil) != fits {
				t.Errorf("%s=%s: %v, and the range is %s", name, text, err, limits)
			}
		}
	}
}

// beyond adds to the number in a text such as 10ms.
func beyond(t *testing.T, text string, add float64) string {
	t.Helper()
	m := regexp.MustCompile(`^([0-9.]+)(\D*)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%q is no number with a unit", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatFloat(n+add, 'f', -1, 64) + m[2]
}

func serveFlags(t *testing.T) []*kong.Flag {
	t.Helper()
	for _, command := range newParser(t).Model.Leaves(true) {
		if command.Name == "serve" {
			return command.Flags
		}
	}
	t.Fatal("there is no command serve")
	return nil
}

func TestDocsDispatcherSettings(t *testing.T) {
	rows := table(t, "docs/reference/settings.md", "flag", "environment", "default", "what it does")
	flags := serveFlags(t)
	if len(rows) != len(flags) {
		t.Fatalf("the table has %d rows, and there are %d flags", len(rows), len(flags))
	}
	for i, flag := range flags {
		row := rows[i]
		if code(row[0]) != "--"+flag.Name || len(flag.Envs) != 1 || code(row[1]) != flag.Envs[0] {
			t.Errorf("row %d is about %s and %s, not --%s and %v", i, row[0], row[1], flag.Name, flag.Envs)
		}
		if flag.HasDefault && code(row[2]) != flag.Default || !flag.HasDefault && strings.Contains(row[2], "`") && !strings.HasPrefix(row[2], "folder") && !strings.HasPrefix(row[2], "file") {
			t.Errorf("--%s: the default is %q, not %s", flag.Name, flag.Default, row[2])
		}
	}
	home := func(name string) string { return map[string]string{"HOME": "~"}[name] }
	if other := defaultData(1000, home); !strings.Contains(rows[1][3], "`"+other+"`") {
		t.Errorf("--data: %q does not say the default of other users, %s", rows[1][3], other)
	}
}

func TestDocsRoutes(t *testing.T) {
	var listed, there []string
	for _, row := range table(t, "docs/reference/http.md", "method", "path", "what it does") {
		listed = append(listed, row[0]+" "+code(row[1]))
	}
	routes := httpapi.New(httpapi.Config{Metrics: http.NotFoundHandler()}).Routes()
	err := chi.Walk(routes, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if strings.HasSuffix(route, "*") || strings.HasPrefix(route, httpapi.CallPrefix) && method != "GET" && method != "POST" {
			method = "any" // that there is
		}
		there = append(there, method+" "+route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	slices.Sort(there)
	there = slices.Compact(there)
	if !slices.Equal(listed, there) {
		t.Errorf("the table lists\n%v\nand there are\n%v", listed, there)
	}
}

func TestDocsErrors(t *testing.T) {
	left := statusTable(t)
	before := 0
	for _, row := range table(t, "docs/reference/errors.md", "status", "code", "fault", "retryable", "when", "what to do") {
		name := faas.Code(code(row[1]))
		status, known := left[name]
		delete(left, name)
		fault, retryable := "platform", "no"
		if name.FunctionsFault() {
			fault = "function"
		}
		if name.Retryable() {
			retryable = "yes"
		}
		if want := []string{strconv.Itoa(status), row[1], fault, retryable}; !known || !slices.Equal(row[:4], want) {
			t.Errorf("the row %v should be %v", row[:4], want)
		}
		if row[4] == "" || row[5] == "" || status < before {
			t.Errorf("the row of %s is empty or out of order", name)
		}
		before = status
	}
	if len(left) > 0 {
		t.Errorf("the table lacks %v", left)
	}
}

// statusTable reads httpapi's table from its source, for it is nobody else's
// to use.
func statusTable(t *testing.T) map[faas.Code]int {
	t.Helper()
	names, statuses := map[string]faas.Code{}, map[faas.Code]int{}
	for _, path := range []string{"internal/faas/error.go", "internal/httpapi/problem.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec: // Name Code = "value"
				if len(n.Values) == 1 {
					if value, ok := n.Values[0].(*ast.BasicLit); ok && value.Kind == token.STRING {
						text, _ := strconv.Unquote(value.Value)
						names[n.Names[0].Name] = faas.Code(text)
					}
				}
			case *ast.KeyValueExpr: // faas.Name: {404, "Title"}
				entry, ok := n.Value.(*ast.CompositeLit)
				if !ok || len(entry.Elts) != 2 {
					return true
				}
				name := ""
				switch key := n.Key.(type) {
				case *ast.SelectorExpr:
					name = key.Sel.Name
				case *ast.Ident:
					name = key.Name
				}
				if number, ok := entry.Elts[0].(*ast.BasicLit); ok {
					statuses[names[name]], _ = strconv.Atoi(number.Value)
				}
			}
			return true
		})
	}
	if len(statuses) != len(names) {
		t.Errorf("there are %d codes, and %d in the table of statuses: %v %v", len(names), len(statuses), names, statuses)
	}
	return statuses
}

func newParser(t *testing.T) *kong.Kong {
	t.Helper()
	k, err := kong.New(&commands{}, kong.Vars{"data": defaultData(0, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// markdown returns the Markdown files of the repository.
func markdown(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, path := range sources(t) {
		if strings.HasSuffix(path, ".md") {
			all = append(all, path)
		}
	}
	return all
}

// sources returns the files of the repository, below root.
func sources(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || slices.Contains([]string{"build", "testdata", "__pycache__"}, entry.Name())) {
			return filepath.SkipDir
		}
		if entry.Type().IsRegular() {
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// documents returns those that users read: the ones at the top, and docs/.
func documents(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(markdown(t), func(path string) bool {
		return strings.Contains(path, "/") && !strings.HasPrefix(path, "docs/")
	})
}

// TestDocsSize: who looks for something does not want to read 400 lines.
func TestDocsSize(t *testing.T) {
	for _, document := range documents(t) {
		most := 400
		switch document {
		case "README.md":
			most = 150
		case "CHANGELOG.md":
			continue
		}
		if n := strings.Count(readFile(t, document), "\n"); n > most {
			t.Errorf("%s has %d lines, and may have %d", document, n, most)
		}
	}
}

var (
	anyFence = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan = regexp.MustCompile("`[^`\n]*`")
	link     = regexp.MustCompile(`\[([^\]\n]*)\]\(([^)\s]+)\)`)
)

// links returns where the links of a Markdown text lead.
func links(markdown string) []string {
	var all []string
	for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(anyFence.ReplaceAllString(markdown, ""), "`"), -1) {
		all = append(all, m[2])
	}
	return all
}

// TestDocsLinks follows the relative links of every Markdown file, to files
// and to headings.
func TestDocsLinks(t *testing.T) {
	followed := 0
	for _, document := range markdown(t) {
		for _, to := range links(readFile(t, document)) {
			target, anchor, _ := strings.Cut(to, "#")
			if strings.HasPrefix(target, "https://") {
				continue
			}
			followed++
			path := document
			if target != "" {
				path = filepath.Join(filepath.Dir(document), target)
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s links to %s: %v", document, to, err)
			} else if anchor != "" && !slices.Contains(anchors(readFile(t, path)), anchor) {
				t.Errorf("%s links to %s, and %s has the headings %v", document, to, path, anchors(readFile(t, path)))
			}
		}
	}
	if followed < 150 {
		t.Errorf("only %d links were found", followed)
	}
}

// anchors makes of headings what GitHub makes of them.
func anchors(markdown string) []string {
	var all []string
	seen := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(anyFence.ReplaceAllString(markdown, ""), -1) {
		plain := strings.ToLower(link.ReplaceAllString(m[1], "$1"))
		anchor := strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(plain, ""), " ", "-")
		n := seen[anchor]
		if seen[anchor]++; n > 0 {
			anchor += "-" + strconv.Itoa(n)
		}
		all = append(all, anchor)
	}
	return all
}

// TestDocsIndex: docs/README.md lists every page.
func TestDocsIndex(t *testing.T) {
	var listed []string
	for _, to := range links(readFile(t, "docs/README.md")) {
		listed = append(listed, filepath.Join("docs", to))
	}
	for _, document := range documents(t) {
		if document != "docs/README.md" && strings.HasPrefix(document, "docs/") && !slices.Contains(listed, document) {
			t.Errorf("docs/README.md does not list %s", document)
		}
	}
}

// TestDocsNamed: the documents that code, scripts and messages name are there,
// and so are the files that documents name.
func TestDocsNamed(t *testing.T) {
	check := func(by, path string) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Errorf("%s names %s: %v", by, path, err)
		}
	}
	document := regexp.MustCompile(`\bdocs/[\w/-]+\.md\b`)
	for _, path := range sources(t) {
		for _, name := range document.FindAllString(readFile(t, path), -1) {
			check(path, name)
		}
	}
	file := regexp.MustCompile("`((?:api|bench|cmd|drivers|examples|faults|internal|scripts)/[a-z][\\w./-]*)`")
	for _, path := range documents(t) {
		for _, m := range file.FindAllStringSubmatch(readFile(t, path), -1) {
			check(path, m[1])
		}
	}
}

// TestDocsCommands holds the table of commands against the program.
func TestDocsCommands(t *testing.T) {
	asks := []string{"url", "token", "data", "help"} // which dispatcher; the page says it once
	there := map[string]string{}
	for _, command := range newParser(t).Model.Leaves(true) {
		name := strings.Join(strings.Fields(command.Path()), " ")
		for _, argument := range command.Positional {
			name += " " + strings.NewReplacer("<", "", ">", "").Replace(strings.ToUpper(argument.Summary()))
		}
		flags := ""
		for _, flag := range command.Flags {
			if !slices.Contains(asks, flag.Name) {
				flags += " `--" + flag.Name + "`"
			}
		}
		if there[name] = strings.TrimSpace(flags); name == "serve" {
			there[name] = "[its settings](settings.md#dispatcher-settings)"
		}
	}
	listed := map[string]string{}
	for _, row := range table(t, "docs/reference/cli.md", "command", "flags", "does") {
		listed[code(row[0])] = row[1]
	}
	if !maps.Equal(listed, there) {
		t.Errorf("the table lists\n%v\nand there are\n%v", listed, there)
	}
}

// TestDocsNames checks that whatever setting and make target is named exists.
func TestDocsNames(t *testing.T) {
	own := strings.Fields("FOB_PORT FOB_DOCKER_SOCKET") // docker-compose.yml's own
	for _, name := range own {
		if !strings.Contains(readFile(t, "docker-compose.yml"), "${"+name+":-") {
			t.Errorf("docker-compose.yml has no %s", name)
		}
	}
	names := append(own, "FOB_SECRETS") // a sandbox's
	for _, command := range newParser(t).Model.Leaves(true) {
		for _, flag := range command.Flags {
			names = append(names, flag.Envs...)
		}
	}
	makefile := readFile(t, "Makefile")
	for _, document := range documents(t) {
		text := readFile(t, document)
		for _, name := range regexp.MustCompile(`\bFOB_[A-Z_]+\b`).FindAllString(text, -1) {
			if !slices.Contains(names, name) {
				t.Errorf("%s names the setting %s, and there is none", document, name)
			}
		}
		for _, m := range regexp.MustCompile("(?m)(?:^|`|FOB_\\S+ )make ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names the target %s, and the Makefile has none", document, m[1])
			}
		}
	}
}

// TestDocsImportTable holds the architecture's table against the one that
// TestImportRule holds against the code.
func TestDocsImportTable(t *testing.T) {
	documented := map[string][]string{}
	for _, row := range table(t, "docs/inside/architecture.md", "package", "what it is", "may import") {
		imports := []string{}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			imports = append(imports, m[1])
		}
		if row[2] == "everything" {
			imports = nil
		}
		documented[code(row[0])] = imports
	}
	want := maps.Clone(mayImport)
	for _, program := range mayImportAll {
		if _, err := os.Stat(filepath.Join(root, program)); err == nil {
			want[program] = nil
		}
	}
	for name, imports := range want {
		got, listed := documented[name]
		slices.Sort(got)
		if imports = slices.Sorted(slices.Values(imports)); !listed || !slices.Equal(got, imports) {
			t.Errorf("the table says that %s may import %v, and the rule says %v", name, got, imports)
		}
		delete(documented, name)
	}
	if len(documented) > 0 {
		t.Errorf("the rule does not know %v", slices.Collect(maps.Keys(documented)))
	}
}
