package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/flockofbirds/fob/internal/faas"
)

// utf16LE is text as PowerShell's > writes it.
func utf16LE(text string) string {
	b := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		b = append(b, byte(unit), byte(unit>>8))
	}
	return string(b)
}

// What a beginner sends in place of code is refused with what to do.
func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	r := boot(t)
	const python = "import os\n\ndef callme(name):\n    greeting = 'hi'\n    return greeting + name\n"
	const script = "const os = require('os');\n\nmodule.exports = (name) => {\n  const greeting = 'hi';\n  return greeting + name;\n};\n"
	const types = "interface Bird { name: string }\nexport function callme(bird: Bird) { return bird.name; }\n"
	withoutBreaks := strings.NewReplacer("\n", "")
	for name, c := range map[string]struct {
		query, body string
		want        refusal
		without     string
	}{
		"JavaScript as Python":             {"", script, wants(422, "does_not_compile", "looks like JavaScript: add lang=node"), "line break"},
		"an ES module as Python":           {"", "export default (name) => name\n", wants(422, "does_not_compile", "add lang=node"), ""},
		"console.log as Python":            {"", "console.log('x')", wants(422, "does_not_compile", "NameError", "add lang=node"), ""},
		"Python as JavaScript":             {"lang=node", python, wants(422, "does_not_compile", "looks like Python: add lang=python"), "line break"},
		"TypeScript as JavaScript":         {"lang=node", types, wants(422, "does_not_compile", "looks like TypeScript", "npx esbuild"), "looks like JavaScript"},
		"TypeScript's annotations":         {"lang=node", "function callme(a: string) {\n  return a;\n}", wants(422, "does_not_compile", "looks like TypeScript", "line 1 is: function callme(a: string) {"), ""},
		"TypeScript as Python":             {"", types, wants(422, "does_not_compile", "looks like TypeScript", "lang=node"), ""},
		"TypeScript by name":               {"lang=ts", types, wants(415, "unknown_language", "TypeScript", "npx esbuild"), ""},
		"Python without its line breaks":   {"", withoutBreaks.Replace(python), wants(422, "does_not_compile", "no line break", "--data-binary"), "JavaScript"},
		"JavaScript without, and a remark": {"lang=node", "// greets" + withoutBreaks.Replace(script), wants(422, "does_not_compile", "no line break", "--data-binary"), "Python"},
		"the name of a file":               {"", "hello.py", wants(422, "does_not_compile", "the name of a file", "--data-binary @hello.py"), ""},
		"the name with its @":              {"lang=node", "@src/hello.mjs", wants(422, "does_not_compile", "the name of a file", "--data-binary @src/hello.mjs"), ""},
		"a form":                           {"", "code=def+callme%28%29%3A%0A++++return+1", wants(422, "does_not_compile", "a form", "--data-binary"), ""},
		"main in Python":                   {"", "def main(): pass\n", wants(422, "does_not_compile", "it defines main", "callme = main"), ""},
		"a handler in JavaScript":          {"lang=node", "exports.handler = async (event) => 1;\n", wants(422, "does_not_compile", "it defines handler"), ""},
		"UTF-16":                           {"", utf16LE(python), wants(400, "bad_request", "UTF-16", "UTF-8"), ""},
		"UTF-16 without its mark":          {"", utf16LE(python)[2:], wants(400, "bad_request", "UTF-16"), ""},
		"a UTF-16 document":                {"", utf16LE(`{"code": "x"}`), wants(400, "bad_request", "UTF-16"), ""},
		"Latin-1":                          {"", "x = '\xe4'", wants(400, "bad_request", "not UTF-8"), "UTF-16"},
		"a missing module":                 {"", "import nosuchmodule", wants(422, "does_not_compile", "nosuchmodule", "standard library", "line 1 is: import nosuchmodule"), ""},
		"a missing package":                {"lang=node", "const _ = require('lodash');", wants(422, "does_not_compile", "lodash", "--bundle"), ""},
		"a missing file":                   {"lang=node", "import x from './x.js';\nexport const callme = () => x;", wants(422, "does_not_compile", "x.js", "one file"), ""},
		"an unknown language":              {"lang=cobol", "x", wants(415, "unknown_language", "cobol", "python", "node"), "TypeScript"},
		"memory":                           {"memory=256", python, wants(400, "bad_request", "that is bytes: write 256MB"), ""},
		"memory in a document":             {"", `{"code": "x", "memory": 256}`, wants(400, "bad_request", "write 256MB"), ""},
		"timeout":                          {"timeout=30", python, wants(400, "bad_request", "no unit: write 30s"), ""},
		"timeout in milliseconds":          {"timeout=30000", python, wants(400, "bad_request", "no unit: write 30000ms"), ""},
		"cpus":                             {"cpus=500m", python, wants(400, "bad_request", "write 0.5"), ""},
		"a variable that comes late":       {"lang=node&env=NODE_DEBUG=http", script, wants(400, "bad_request", "NODE_DEBUG takes effect only when a process starts"), ""},
		"a locale that comes late":         {"lang=node&env=LC_ALL=de_DE.UTF-8", script, wants(400, "bad_request", "LC_ALL", "toLocaleString"), ""},
		// What is wrong in its own language gets the line, and no advice that is beside the point.
		"a slip in Python":     {"", "def callme(:\n    return 1\n", wants(422, "does_not_compile", "SyntaxError", "line 1 is: def callme(:"), "looks like"},
		"a slip in JavaScript": {"lang=node", "const types = { type: string };\nfunction callme( {\n  return 1;\n}\n", wants(422, "does_not_compile", "SyntaxError"), "looks like"},
		"Python about scripts": {"", "def callme():\n    return '''const x = () => { require('x') }'''\n\ndef broken(:\n", wants(422, "does_not_compile", "line 4 is: def broken(:"), "looks like"},
		"a script on Python":   {"lang=node", "const code = `\ndef callme():\n    pass\n`;\nmodule.exports = (\n", wants(422, "does_not_compile", "SyntaxError"), "looks like"},
		"code of one line":     {"", "def callme(: return 1", wants(422, "does_not_compile", "SyntaxError"), "line break"},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.want.check(t, r.do("POST", "/api/gen?"+c.query, c.body))
			if c.without != "" && strings.Contains(p.Detail, c.without) {
				t.Errorf("the detail %q has %q", p.Detail, c.without)
			}
		})
	}
}

// What is merely spelled otherwise is taken.
func TestUsualSpellingsAreTaken(t *testing.T) {
	t.Parallel()
	r := boot(t)
	const python, script = "def callme(): return 1", "module.exports = () => 1"
	for query, code := range map[string]string{
		"lang=py": python, "lang=python3": python, "lang=Python": python, "lang=js": script, "lang=javascript": script, "lang=nodejs": script, "lang=JavaScript": script,
		"memory=64M": python, "memory=64Mi": python, "memory=64mb": python,
		"name=mark1": "\ufeff" + python, "name=mark2": "\ufeff" + `{"code": "def callme(): return 1", "lang": "py"}`,
		"name=mark3&lang=node": "\ufeff" + script,
	} {
		id := r.gen("?"+query, code)
		r.do("GET", "/api/call/"+id, "").wants(t, 200, `{"result": 1}`)
	}
	fn := show(t, r.do("PUT", "/api/functions/mark1?lang=js", script), 200)
	if fn.Version.Lang != "node" {
		t.Errorf("lang=js is kept as %q", fn.Version.Lang)
	}
	if fn = show(t, r.do("PATCH", "/api/functions/mark1", "\ufeff{\"timeout\": \"5s\"}"), 200); fn.Version.Settings.Timeout != faas.Duration(5*time.Second) {
		t.Errorf("%+v", fn)
	}
}

// A call whose function lacks a module says so, too.
func TestMissingModuleInACall(t *testing.T) {
	t.Parallel()
	r := boot(t)
	id := r.gen("", "def callme():\n    import nosuchmodule\n")
	wants(500, "function_raised", "ModuleNotFoundError", "nosuchmodule", "standard library").check(t, r.do("GET", "/api/call/"+id, ""))
}

// What curl makes of its options is what the hints are for.
func TestHintsForCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl")
	}
	r := boot(t)
	file := filepath.Join(t.TempDir(), "hello.py")
	if err := os.WriteFile(file, []byte("import os\n\ndef callme():\n    here = os.getcwd()\n    return here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ options, want string }{
		{"-d @" + file, "--data-binary"},
		{"--data-binary hello.py", "--data-binary @hello.py"},
		{"-F file=@" + file, "multipart form"},
		{"--data-urlencode code@" + file, "a form"},
		{"-T " + file + " -X POST", `"id"`},
		{"--data-binary @" + file, `"id"`},
	} {
		out, err := exec.Command(curl, append(strings.Fields(c.options), "-s", r.URL+"/api/gen")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("curl %s: %v, %s", c.options, err, out)
		}
	}
}
