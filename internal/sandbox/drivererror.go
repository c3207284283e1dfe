package sandbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// DriverError is an error that the driver itself answered with (marked by Fob-Error). A
// stranger's code may have influenced it, so its fields are at most as long as the
// driver contract allows.
type DriverError struct {
	Status    int    `json:"-"`
	Code      string `json:"code"`
	Type      string `json:"type"`
	Message   string `json:"message"`
	Hint      string `json:"hint"` // what to do about it, as the end of a sentence
	Line      int    `json:"line"`
	Traceback string `json:"traceback"`

	Usage Usage `json:"-"` // of the call
}

func (e *DriverError) Error() string { return e.Code + ": " + e.Message }

// maxDocument bounds the JSON documents that a driver sends about an error or its
// health, in bytes.
const maxDocument = 128 << 10

// The sizes in bytes to which an error's texts are cut. They may be longer although the
// document is bounded, because a byte that is not UTF-8 becomes a character of three
// bytes.
const (
	maxCode      = 64
	maxType      = 256
	maxMessage   = 8 << 10
	maxHint      = 1 << 10
	maxTraceback = 64 << 10
	maxLine      = 1 << 30
)

// newDriverError decodes an error document.
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

// clip cuts texts that are too long.
func (e *DriverError) clip() *DriverError {
	e.Code = clipText(e.Code, maxCode)
	e.Type = clipText(e.Type, maxType)
	e.Message = clipText(e.Message, maxMessage)
	e.Hint = clipText(e.Hint, maxHint)
	e.Traceback = clipText(e.Traceback, maxTraceback)
	e.Line = min(max(0, e.Line), maxLine)
	return e
}

// clipText cuts a text between characters. The result does not hold on to the memory of
// the rest.
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
