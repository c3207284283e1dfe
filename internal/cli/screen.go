package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"
	"golang.org/x/text/width"
)

// screen is where a command prints for people. It is a terminal, or a file or pipe.
type screen struct {
	*bufio.Writer
	columns int  // of the terminal; 0 if it is none
	colours bool // whether colours are wanted
}

// newScreen returns the screen of a file. NO_COLOR and TERM=dumb turn colours off.
func newScreen(file *os.File) *screen {
	s := &screen{Writer: bufio.NewWriter(file)}
	if !isatty.IsTerminal(file.Fd()) {
		return s
	}
	s.columns = 80
	if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
		s.columns = columns
	}
	s.colours = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

// A colour is the number of an SGR escape sequence.
type colour int

const (
	plain  colour = 0
	bold   colour = 1
	dim    colour = 2
	red    colour = 31
	green  colour = 32
	yellow colour = 33
)

// paint returns text in a colour, if colours are wanted. text is harmless.
func (s *screen) paint(c colour, text string) string {
	if !s.colours || c == plain || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

// table is what people see of many things: a row for each.
type table struct {
	header []string
	rows   [][]string
	colour func(column int, text string) colour // of a cell; nil for plain
}

// add adds a row.
func (t *table) add(cells ...string) {
	for i, text := range cells {
		cells[i] = strings.ReplaceAll(harmless(text, ""), `\u000a`, " ")
	}
	t.rows = append(t.rows, cells)
}

// print writes the table. On a terminal the widest columns are cut so that rows fit.
func (s *screen) print(t *table) {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, text := range row {
			widths[i] = max(widths[i], columns(text))
		}
	}
	fit(widths, s.columns)
	line := func(row []string, paint func(i int, text string) string) {
		for i, text := range row {
			text = cut(text, widths[i])
			pad := ""
			if i < len(row)-1 {
				pad = strings.Repeat(" ", widths[i]-columns(text)+2)
			}
			s.WriteString(paint(i, text) + pad)
		}
		s.WriteByte('\n')
	}
	line(t.header, func(_ int, text string) string { return s.paint(bold, text) })
	for _, row := range t.rows {
		line(row, func(i int, text string) string {
			if t.colour == nil {
				return text
			}
			return s.paint(t.colour(i, row[i]), text)
		})
	}
}

// fit makes columns, with two spaces between them, as narrow as they must be for a line
// of that many columns; 0 stands for no bound.
func fit(widths []int, line int) {
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; line > 0 && total > line; total-- {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= 1 {
			return
		}
		widths[widest]--
	}
}

// columns returns how many columns of a terminal a text takes.
func columns(text string) (n int) {
	for _, r := range text {
		n += columnsOf(r)
	}
	return n
}

func columnsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cut shortens a text to that many columns.
func cut(text string, most int) string {
	if columns(text) <= most {
		return text
	}
	n := 0
	for i, r := range text {
		if n += columnsOf(r); n > most-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// harmless returns text with everything escaped that is not printable, except for the
// characters in keep. Text of functions and of strangers must not move the cursor, or
// begin a line that looks like ours.
func harmless(text, keep string) string {
	fine := func(r rune) bool { return unicode.IsPrint(r) || strings.ContainsRune(keep, r) }
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !fine(r) }) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case fine(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r) // as in JSON
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// tame is a writer for a terminal that makes what it is given harmless. A character may
// come in several pieces.
type tame struct {
	out  io.Writer
	rest []byte // of a character that is not complete
	last byte   // that was written
}

// Write implements io.Writer.
func (t *tame) Write(p []byte) (int, error) {
	text := append(t.rest, p...)
	whole := len(text)
	for i := 1; i <= utf8.UTFMax && i <= len(text); i++ {
		if start := len(text) - i; utf8.RuneStart(text[start]) {
			if !utf8.FullRune(text[start:]) {
				whole = start
			}
			break
		}
	}
	t.rest = bytes.Clone(text[whole:])
	if whole == 0 {
		return len(p), nil
	}
	t.last = text[whole-1]
	_, err := io.WriteString(t.out, harmless(strings.ReplaceAll(string(text[:whole]), "\r\n", "\n"), "\n\t"))
	return len(p), err
}

// end writes what is left, and ends the line.
func (t *tame) end() error {
	text := harmless(string(t.rest), "")
	if t.rest = nil; text != "" || t.last != '\n' && t.last != 0 {
		text += "\n"
	}
	_, err := io.WriteString(t.out, text)
	return err
}

// passOn writes what a function or a stranger wrote to standard output as it comes:
// unchanged, but harmless for a terminal.
func passOn(in io.Reader) error {
	if !isatty.IsTerminal(os.Stdout.Fd()) {
		_, err := io.Copy(os.Stdout, in)
		return err
	}
	out := &tame{out: os.Stdout}
	_, err := io.Copy(struct{ io.Writer }{out}, in)
	if ended := out.end(); err == nil {
		err = ended
	}
	return err
}

// line writes a value as a line of JSON.
func (s *screen) line(value any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return err
	}
	return s.raw(b.Bytes())
}

// raw writes a line of JSON. On a terminal characters are escaped there, too, that JSON
// need not escape.
func (s *screen) raw(line []byte) error {
	if s.columns > 0 {
		line = []byte(harmless(string(line), "\n"))
	}
	_, err := s.Write(line)
	return err
}
