package faas

import (
	"strings"
	"unicode/utf8"
)

// Bounds of the texts in a record, in bytes.
const (
	MaxRecordText      = 1 << 10
	MaxRecordTraceback = 8 << 10
)

// Bound cuts the texts of a record that may be long. Of a traceback the end matters.
func (c *CallRecord) Bound() {
	for _, text := range []*string{&c.ID, &c.Name, &c.Method, &c.Path, &c.Caller, &c.Address} {
		*text = Clip(*text, MaxRecordText)
	}
	if e := c.Error; e != nil {
		bounded := *e // the answer to the call shares it
		bounded.Type, bounded.Message = Clip(e.Type, MaxRecordText), Clip(e.Message, MaxRecordText)
		if over := len(e.Traceback) - MaxRecordTraceback; over > 0 {
			end := e.Traceback[over:]
			for range utf8.UTFMax - 1 { // not in the middle of a character
				if end != "" && !utf8.RuneStart(end[0]) {
					end = end[1:]
				}
			}
			bounded.Traceback = "…" + end
		}
		c.Error = &bounded
	}
}

// Own copies the texts that may be pieces of a request's head, which may be long and
// would stay in memory for as long as the record waits.
func (c *CallRecord) Own() {
	for _, text := range []*string{&c.ID, &c.Name, &c.Alias, &c.Method, &c.Path} {
		*text = strings.Clone(*text)
	}
}

// Clip returns a text, or its beginning if it is longer than most bytes.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for range utf8.UTFMax - 1 { // not in the middle of a character
		if most > 0 && !utf8.RuneStart(text[most]) {
			most--
		}
	}
	return text[:most] + "…"
}
