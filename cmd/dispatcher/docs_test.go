package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/pages"
)

// wantTable fails the test unless the table with that header has these rows, but
// for links.
func wantTable(t *testing.T, want [][]string, path string, header ...string) {
	t.Helper()
	rows := pages.Table(t, path, header...)
	for i, row := range want {
		line := "| " + strings.Join(row, " | ") + " |"
		if i >= len(rows) {
			t.Errorf("the table of %s lacks\n%s", path, line)
		} else if has := link.ReplaceAllString("| "+strings.Join(rows[i], " | ")+" |", "$1"); has != line {
			t.Errorf("the table of %s has\n%s\nand is to have\n%s", path, has, line)
		}
	}
	if more := len(rows) - len(want); more > 0 {
		t.Errorf("the table of %s has %d rows too many", path, more)
	}
}

// TestDocsFunctionSettings tries what the declarations of settings say, which is what
// TestGenerated holds the documents against.
func TestDocsFunctionSettings(t *testing.T) {
	everyday := 0
	for i := range faas.SettingTable {
		s := &faas.SettingTable[i]
		if s.Everyday {
			everyday++
		}
		defaults := faas.DefaultSettings()
		if got, err := apply(s.Name, s.Default, defaults); err != nil || got != defaults {
			t.Errorf("%s=%s is not the default: the defaults are %+v", s.Name, s.Default, defaults)
		}
		if got, err := apply(s.Name, s.Example, defaults); err != nil || got == defaults {
			t.Errorf("%s=%s is no example: %v", s.Name, s.Example, err)
		}
		m := regexp.MustCompile(`^(\S+) to (\S+)$`).FindStringSubmatch(s.Range)
		if m == nil {
			continue
		}
		low, high := m[1], m[2]
		wide := faas.DefaultSettings()
		wide.MinScale, wide.MaxScale = 0, 1000
		for text, fits := range map[string]bool{low: true, high: true, beyond(t, low, -1): false, beyond(t, high, 1): false} {
			if _, err := apply(s.Name, text, wide); (err == nil) != fits {
				t.Errorf("%s=%s: %v, and the range is %s", s.Name, text, err, s.Range)
			}
		}
	}
	if everyday > 8 {
		t.Errorf("%d settings are everyday ones: that is too many to be of help", everyday)
	}
}

func apply(name, text string, base faas.Settings) (faas.Settings, error) {
	var patch faas.SettingsPatch
	if err := patch.Set(name, text); err != nil {
		return base, err
	}
	return patch.Apply(base)
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
	rows := map[string][]string{} // by flag
	for group, kind := range map[string]string{"Everyday:": "everyday flag", "Tuning:": "flag for tuning"} {
		all := pages.Table(t, settingsPage, kind, "environment", "default", "what it does")
		if group == "Everyday:" && len(all) > 8 {
			t.Errorf("%d flags are everyday ones: that is too many to be of help", len(all))
		}
		for _, row := range all {
			rows[pages.Code(row[0])+group] = row
		}
	}
	flags := serveFlags(t)
	if len(rows) != len(flags) {
		t.Fatalf("the tables have %d rows, and there are %d flags", len(rows), len(flags))
	}
	for _, flag := range flags {
		row := rows["--"+flag.Name+flag.Group.Key]
		if row == nil {
			t.Errorf("no table has --%s, or not the one of %s", flag.Name, flag.Group.Key)
			continue
		}
		if len(flag.Envs) != 1 || pages.Code(row[1]) != flag.Envs[0] {
			t.Errorf("the row of --%s is about %s, not %v", flag.Name, row[1], flag.Envs)
		}
		if flag.HasDefault && pages.Code(row[2]) != flag.Default || !flag.HasDefault && strings.Contains(row[2], "`") && !strings.HasPrefix(row[2], "folder") && !strings.HasPrefix(row[2], "file") {
			t.Errorf("--%s: the default is %q, not %s", flag.Name, flag.Default, row[2])
		}
	}
	home := func(name string) string { return map[string]string{"HOME": "~"}[name] }
	if other := defaultData(1000, home); !strings.Contains(rows["--dataEveryday:"][3], "`"+other+"`") {
		t.Errorf("--data does not say the default of other users, %s", other)
	}
}

// TestDocsRoutes: the table has each route's row, but for links.
func TestDocsRoutes(t *testing.T) {
	var want [][]string
	for _, rt := range httpapi.Routes() {
		want = append(want, []string{rt.Method, "`" + rt.Path + "`", rt.Doc})
	}
	wantTable(t, want, "docs/reference/http.md", "method", "path", "what it does")
}

// TestDocsErrors: the table has each code's row, but for links.
func TestDocsErrors(t *testing.T) {
	var want [][]string
	for _, c := range faas.CodeTable {
		retryable := "no"
		if c.Retryable {
			retryable = "yes"
		}
		want = append(want, []string{strconv.Itoa(c.Status), "`" + string(c.Code) + "`", string(c.Fault), retryable, c.When, c.Remedy})
	}
	wantTable(t, want, "docs/reference/errors.md", "status", "code", "fault", "retryable", "when", "what to do")
}

func newParser(t *testing.T) *kong.Kong {
	t.Helper()
	k, err := kong.New(newCommands(), kong.Vars{"data": defaultData(0, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestDocsCommands checks the table of commands against the program.
func TestDocsCommands(t *testing.T) {
	asks := []string{"url", "token", "context", "data", "help"} // which dispatcher; the page says it once
	there := map[string]string{}
	for _, command := range newParser(t).Model.Leaves(true) {
		name := strings.Join(strings.Fields(command.Path()), " ")
		for _, argument := range command.Positional {
			name += " " + strings.NewReplacer("<", "", ">", "").Replace(strings.ToUpper(argument.Summary()))
		}
		flags, settings := "", ""
		for _, flag := range command.Flags {
			if faas.FindSetting(strings.ReplaceAll(flag.Name, "-", "_")) != nil && command.Name == "deploy" {
				settings = " and [those of functions](settings.md#function-settings)"
			} else if !slices.Contains(asks, flag.Name) {
				flags += " `--" + flag.Name + "`"
			}
		}
		flags += settings
		if there[name] = strings.TrimSpace(flags); name == "serve" {
			there[name] = "[its settings](settings.md#dispatcher-settings)"
		}
	}
	listed := map[string]string{}
	for _, row := range pages.Table(t, "docs/reference/cli.md", "command", "flags", "does") {
		listed[pages.Code(row[0])] = row[1]
	}
	if !maps.Equal(listed, there) {
		t.Errorf("the table lists\n%v\nand there are\n%v", listed, there)
	}
}

// TestDocsNames checks that whatever setting and make target is named exists.
func TestDocsNames(t *testing.T) {
	own := strings.Fields("FOB_PORT FOB_DOCKER_SOCKET") // docker-compose.yml's own
	for _, name := range own {
		if !strings.Contains(pages.Read(t, "docker-compose.yml"), "${"+name+":-") {
			t.Errorf("docker-compose.yml has no %s", name)
		}
	}
	names := append(own, "FOB_SECRETS") // a sandbox's
	for _, command := range newParser(t).Model.Leaves(true) {
		for _, flag := range command.Flags {
			names = append(names, flag.Envs...)
		}
	}
	makefile := pages.Read(t, "Makefile")
	for _, document := range pages.Documents(t) {
		text := pages.Read(t, document)
		for _, name := range regexp.MustCompile(`\bFOB_[A-Z_]+\b`).FindAllString(text, -1) {
			if !slices.Contains(names, name) {
				t.Errorf("%s names the setting %s, which does not exist", document, name)
			}
		}
		for _, m := range regexp.MustCompile("(?m)(?:^|`|FOB_\\S+ )make ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names the target %s, and the Makefile has none", document, m[1])
			}
		}
	}
}

// TestDocsImportTable checks the architecture's table against the one that
// TestImportRule checks the code against.
func TestDocsImportTable(t *testing.T) {
	documented := map[string][]string{}
	for _, row := range pages.Table(t, "docs/inside/architecture.md", "package", "what it is", "may import") {
		imports := []string{}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			imports = append(imports, m[1])
		}
		if row[2] == "everything" {
			imports = nil
		}
		documented[pages.Code(row[0])] = imports
	}
	want := maps.Clone(mayImport)
	for _, program := range mayImportAll {
		if _, err := os.Stat(filepath.Join(pages.Root(t), program)); err == nil {
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
