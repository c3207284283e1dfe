package dispatch

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/flockofbirds/fob/internal/faas"
)

// hint returns advice about code that could not be loaded, or "" if its text suggests
// none: for example that it is JavaScript, not Python. line is the number of the line at
// fault, from 1, or 0.
func hint(lang, code string, line int) string {
	atFault := lineOf(code, line)
	code = strings.TrimSpace(strings.TrimPrefix(code, "\ufeff"))
	switch {
	case fileName.MatchString(code):
		return "this is the name of a file and not what is in it: send that, as in curl --data-binary @" + strings.TrimPrefix(code, "@")
	case formBody.MatchString(code):
		return "this looks like a form: send the code as it is, as curl --data-binary @hello.py does"
	}
	var hints []string
	python, script := pythonMark.MatchString(code), scriptMark.MatchString(code)
	switch {
	case lang == "python" && script && !python && typesMark.MatchString(code):
		hints = append(hints, "this looks like TypeScript, "+faas.NoTypes)
	case lang == "python" && script && !python:
		hints = append(hints, "this looks like JavaScript: add lang=node")
	case lang == "node" && python && !script:
		hints = append(hints, "this looks like Python: add lang=python")
	// An object may have a member called type. That the very line at fault has one is
	// no coincidence.
	case lang == "node" && !python && typesMark.MatchString(atFault):
		hints = append(hints, "this looks like TypeScript, "+faas.NoTypes)
	}
	if !strings.ContainsAny(code, "\r\n") && lostBreaks.MatchString(code) {
		hints = append(hints, "there is no line break in it: if it comes from a file, curl's -d has removed them, so use --data-binary")
	}
	return strings.Join(hints, "; ")
}

// These patterns recognise code by its text alone. They are applied only to code that
// could not be loaded, so a wrong hint never refuses good code.
var (
	fileName = regexp.MustCompile(`^@?[\w./-]{1,80}\.(?:py|m?js|cjs|tsx?)$`)
	formBody = regexp.MustCompile(`^[\w-]+=\S*%(?:0A|0D|20|28|3A|7B)|^[\w-]+=\S*\+\S*\+`)

	pythonMark = regexp.MustCompile(`(?m)` + strings.Join([]string{
		`^\s*(?:async\s+)?def\s+\w+\s*\(`,
		`^\s*from\s+[\w.]+\s+import\s`,
		`^\s*import\s+[\w.]+(?:\s+as\s+\w+)?\s*(?:#.*)?$`,
		`^\s*(?:if|for|while|elif|else|try|except|with|class)\b[^{}]*:\s*(?:#.*)?$`,
	}, "|"))
	scriptMark = regexp.MustCompile(`(?m)` + strings.Join([]string{
		`\bfunction\b\s*\*?\s*\w*\s*\(`,
		`(?:^|[;{}])\s*(?:export\s+)?(?:const|let|var)\s+[\w${\[]`,
		`\bmodule\.exports\b|\bexports\.\w+\s*=|^\s*export\s+(?:default|async|function|class|const|\{)`,
		`^\s*import\s+[\w*{][^'"\n]*\bfrom\s*['"]|\brequire\s*\(\s*['"]`,
		`=>|\bconsole\.\w+\(`,
	}, "|"))
	typesMark = regexp.MustCompile(`(?m)` + strings.Join([]string{
		`^\s*(?:export\s+)?(?:default\s+)?(?:declare\s+)?interface\s+\w+[^;=(]*\{?\s*$`,
		`^\s*(?:export\s+)?interface\s+\w+[^;=(]*\{`,
		`^\s*(?:export\s+)?(?:declare\s+)?type\s+\w+\s*(?:<[^>]*>)?\s*=`,
		`^\s*(?:export\s+)?(?:const\s+)?enum\s+\w+\s*\{?`,
		`^\s*import\s+type\s`,
		`[\w)\]}?]\s*:\s*(?:string|number|boolean|any|void|unknown|never|object|bigint|(?:Promise|Record|Array|Map|Set|Partial)<)`,
		`\bas\s+(?:const|any|unknown|string|number|boolean)\b`,
		`\bfunction\s*\w*\s*<\w`,
	}, "|"))

	lostBreaks = regexp.MustCompile(`\S[ \t]{2,}\S|\S\t\S`)
)

// maxLineShown is how many bytes of a line at fault an error shows.
const maxLineShown = 160

// clip cuts a text between characters.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "…"
}

// lineOf returns a line of code, or the whole code for line 0.
func lineOf(code string, line int) string {
	if line == 0 {
		return code
	}
	for text := range strings.Lines(code) {
		if line--; line == 0 {
			return strings.TrimSpace(text)
		}
	}
	return ""
}
