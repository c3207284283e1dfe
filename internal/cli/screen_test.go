package cli

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestHarmless: nothing that a terminal obeys gets through, and what people write does.
func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"plain, ünï©ödé 日本": "plain, ünï©ödé 日本",
		"\x1b[2J\x07":       `\u001b[2J\u0007`,
		"a\nb\tc\r":         "a\nb\tc" + `\u000d`,
		"\u202egnp.exe":     `\u202egnp.exe`,
		"\u009b31m":         `\u009b31m`,
		"bad \xff\xc3":      `bad \xff\xc3`,
		"real \ufffd":       "real \ufffd",
		"\U000e0041":        `\udb40\udc41`,
	} {
		if got := harmless(text, "\n\t"); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestTame: a character that comes in pieces stays whole, and the line ends.
func TestTame(t *testing.T) {
	text := "日本 \x1b]0;x\x07 ü\xff\r\nend é"
	for size := 1; size <= len(text); size++ {
		var b strings.Builder
		out := &tame{out: &b}
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{strings.NewReader(text)}, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := out.end(); err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(b.String(), `\u000d`, ""); got != "日本 "+`\u001b]0;x\u0007 ü\xff`+"\nend é\n" {
			t.Errorf("in pieces of %d it became %q", size, got)
		}
	}
}

// TestTableFits: no line is wider than the terminal, wide characters count twice, and
// without a terminal nothing is cut.
func TestTableFits(t *testing.T) {
	var b strings.Builder
	for _, width := range []int{10, 30, 50, 120, 0} {
		b.Reset()
		s := &screen{Writer: bufio.NewWriter(&b), columns: width}
		wide := &table{header: []string{"NAME", "ID", "DESCRIPTION"}}
		wide.add("hello", "8c5b2d1e", strings.Repeat("日本語 and more ", 10))
		wide.add("a\nb\x1b[31m", "1", "")
		s.print(wide)
		s.Flush()
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != 3 {
			t.Fatalf("it has %d lines: %q", len(lines), b.String())
		}
		for _, line := range lines {
			if width > 0 && columns(line) > width {
				t.Errorf("%q has %d columns, and the terminal %d", line, columns(line), width)
			}
		}
		if cutOff := strings.Contains(b.String(), "…"); cutOff != (width > 0) {
			t.Errorf("with %d columns it was cut: %v", width, cutOff)
		}
	}
}

// TestPointAt: the caret stands where the compiler's does, or below the whole line.
func TestPointAt(t *testing.T) {
	const code = "def callme(a):\n\tx = [1,\n\treturn a +* 2\n\n"
	for _, c := range []struct {
		line      int
		message   string
		traceback string
		want      string
	}{
		{1, "", "", "  def callme(a):\n  ^^^^^^^^^^^^^^\n"},
		{3, "", "", "      return a +* 2\n      ^^^^^^^^^^^^^\n"},
		{3, "Unexpected token '*'", "", "      return a +* 2\n                ^\n"},
		{3, "Unexpected identifier 'return'", "", "      return a +* 2\n      ^^^^^^\n"},
		{3, "Unexpected token ';'", "", "      return a +* 2\n      ^^^^^^^^^^^^^\n"},
		{2, "'[' was never closed", "", "      x = [1,\n          ^\n"},
		{3, "", "  File \"function.py\", line 3\n    return a +* 2\n              ^\nSyntaxError: invalid syntax", "      return a +* 2\n                ^\n"},
		{3, "", "    return a +* 2\n           ~^~~\n", "      return a +* 2\n             ~^~~\n"},
		{4, "", "", ""},
		{9, "", "", ""},
		{0, "", "", ""},
	} {
		if got := pointAt(code, &faas.Raised{Line: c.line, Message: c.message, Traceback: c.traceback}); got != c.want {
			t.Errorf("line %d with %q:\n%s\nwant\n%s", c.line, c.traceback, got, c.want)
		}
	}
	if got := pointAt("", &faas.Raised{Line: 1}); got != "" {
		t.Errorf("no code shows %q", got)
	}
}
