package sandbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// DriverError is an error answer of the driver's own (one with Fob-Error). It is
// what strangers' code makes of it, so its members are no longer than the driver
// contract allows.
type DriverError struct {
	Status    int    `json:"-"`
	Code      string `json:"code"`
	Type      string `json:"type"`
	Message   string `json:"message"`
	Hint      string `json:"hint"` // what to do about it, as the end of a sentence
	Line      int    `json:"line"`
	Traceback string `json:"traceback"`
}

func (e *DriverError) Error() string { return e.Code + ": " + e.Message }

// maxDocument bounds a document of the driver's own, an error or how it is, in
// bytes as it comes.
const maxDocument = 128 << 10

// What an error is clipped to, in bytes. Its document may say more, for JSON has
// ways of writing that are shorter than what is written: of bytes that are not
// UTF-8 each becomes a character of three.
const (
	maxCode      = 64
	maxType      = 256
	maxMessage   = 8 << 10
	maxHint      = 1 << 10
	maxTraceback = 64 << 10
	maxLine      = 1 << 30
)

// newDriverError reads an error document.
func newDriverError(status int, document []byte) (*DriverError, error) {
	var e struct {
		Error *DriverError `json:"error"`
	}
	if err := json.Unmarshal(document, &e); err != nil || e.Error == nil || e.Error.Code == "" {
		return nil, fmt.Errorf("%w: its error is not an error document", ErrBadAnswer)
	}
	e.Error.Status = status
	return e.Error.clip(), nil
}

// clip shortens what is longer than it may be.
func (e *DriverError) clip() *DriverError {
	e.Code = clipText(e.Code, maxCode)
	e.Type = clipText(e.Type, maxType)
	e.Message = clipText(e.Message, maxMessage)
	e.Hint = clipText(e.Hint, maxHint)
	e.Traceback = clipText(e.Traceback, maxTraceback)
	e.Line = min(max(0, e.Line), maxLine)
	return e
}

// clipText cuts a text at a character, and lets go of what it cuts off.
func clipText(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const mark = "…"
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + mark
}
