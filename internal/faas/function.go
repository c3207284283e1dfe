package faas

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Live is the alias that every function has. A ref without a version or an alias means
// it.
const Live = "live"

// Function is what a user registers. It is immutable; a change makes a new value. It
// holds only the live version. The store has the others, because there may be many and
// they are rarely needed.
type Function struct {
	ID       string         `json:"id"`             // a UUID
	Name     string         `json:"name,omitempty"` // unique, or empty
	Created  time.Time      `json:"created"`
	Aliases  map[string]int `json:"aliases"`  // alias → version number; always has Live
	Versions []int          `json:"versions"` // numbers of the versions that are kept, ascending
	Current  *Version       `json:"-"`        // the version that Live points to
}

// Version is a function's code, language and settings. It never changes. The code is
// kept apart (Store.Code), because only loading a sandbox needs it.
type Version struct {
	FunctionID string    `json:"function"`
	Number     int       `json:"version"` // counts from 1 within its function
	Lang       string    `json:"lang"`
	Settings   Settings  `json:"settings"`
	Created    time.Time `json:"created"`
	Size       int       `json:"size"`   // of the code, in bytes
	Digest     string    `json:"digest"` // "sha256:" and 64 hexadecimal digits, of the code
}

// Digest returns the digest of code in the form that Version.Digest has.
func Digest(code string) string {
	sum := sha256.Sum256([]byte(code))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// VersionKey identifies a version.
type VersionKey struct {
	FunctionID string `json:"function"`
	Number     int    `json:"version"`
}

// Key returns the version's key.
func (v *Version) Key() VersionKey { return VersionKey{v.FunctionID, v.Number} }

// Has reports whether the function has, and still keeps, the version of that number.
func (f *Function) Has(number int) bool {
	_, ok := slices.BinarySearch(f.Versions, number)
	return ok
}

// Live returns the version that the alias live points to.
func (f *Function) Live() *Version { return f.Current }

// Latest returns the highest version number, or 0 if there is none yet.
func (f *Function) Latest() int {
	if len(f.Versions) == 0 {
		return 0
	}
	return f.Versions[len(f.Versions)-1]
}

// With returns a copy of f with v added as its live version.
func (f *Function) With(v *Version) *Function {
	next := *f
	next.Versions = append(slices.Clip(f.Versions), v.Number)
	next.Aliases = make(map[string]int, len(f.Aliases))
	for alias, number := range f.Aliases {
		next.Aliases[alias] = number
	}
	next.Aliases[Live] = v.Number
	next.Current = v
	return &next
}

// Without returns a copy of f without some versions.
func (f *Function) Without(numbers []int) *Function {
	next := *f
	next.Versions = slices.DeleteFunc(slices.Clone(f.Versions), func(n int) bool { return slices.Contains(numbers, n) })
	return &next
}

// Surplus returns the versions that may be dropped, oldest first: all except those that
// an alias points to and the newest, as many as keep_versions of the live version says.
func (f *Function) Surplus() []int {
	var surplus []int
	for _, number := range f.Versions[:max(0, len(f.Versions)-f.Live().Settings.KeepVersions)] {
		named := false
		for _, other := range f.Aliases {
			named = named || other == number
		}
		if !named {
			surplus = append(surplus, number)
		}
	}
	return surplus
}

// Draft is what a client sends to make a version.
type Draft struct {
	Code     string
	Lang     string // empty: the live version's, else python
	Settings SettingsPatch
}

// SandboxInfo describes one sandbox that has a version loaded.
type SandboxInfo struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // "ready", "busy", "paused" or "draining"
	Host     string    `json:"host"`  // on the engine's network
	Port     int       `json:"port"`  // of the driver, which asks for the sandbox's token there
	InFlight int       `json:"in_flight"`
	Started  time.Time `json:"started"`
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// CheckName returns what is wrong with a function's name, or nil. A name is 1 to 63
// letters, digits, - and _, begins with a letter or digit, and does not look like an
// ID, so that refs are never ambiguous.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return Errorf(CodeBadRequest, "%q is not a function name: use 1 to 63 letters, digits, - and _, beginning with a letter or digit", clip(name, 80))
	}
	if uuid.Validate(name) == nil {
		return Errorf(CodeBadRequest, "%q looks like a function ID: choose a name that does not", name)
	}
	return nil
}

// clip shortens a user's text for a message.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}

// Lang returns the language that a client means by one of its usual names. It returns
// any other name unchanged.
func Lang(name string) string {
	switch lower := strings.ToLower(name); lower {
	case "py", "python3":
		return "python"
	case "js", "javascript", "nodejs", "node.js", "mjs":
		return "node"
	default:
		return lower
	}
}

// NoTypes is the advice about TypeScript that follows a clause which identifies it.
const NoTypes = "for which there is no driver: turn it into JavaScript, as with npx esbuild hello.ts > hello.js, and add lang=node"

// CheckLang fails with CodeUnknownLanguage if there is no driver for a language.
func CheckLang(lang string, drivers []string) error {
	if slices.Contains(drivers, lang) {
		return nil
	}
	if lang == "ts" || lang == "tsx" || lang == "typescript" {
		return Errorf(CodeUnknownLanguage, "this is TypeScript, %s", NoTypes)
	}
	return Errorf(CodeUnknownLanguage, "there is no driver for the language %.40q; there are %v", lang, drivers)
}

// TooMuchMemory returns the error for a sandbox that would need more memory than all
// sandboxes together may have.
func TooMuchMemory(code Code, memory, all Bytes) error {
	return Errorf(code, "memory=%v is more than all sandboxes together may have, %v: give it less, or raise FOB_MAX_MEMORY", memory, all)
}

// CheckCode returns what is wrong with code, whatever its language, or nil.
func CheckCode(code string) error {
	switch {
	case strings.TrimSpace(strings.TrimPrefix(code, "\ufeff")) == "":
		return Errorf(CodeBadRequest, "there is no code: send the code fragment as the body, as with curl --data-binary @hello.py")
	case !utf8.ValidString(code) || isUTF16(code):
		return NotUTF8("the code", code)
	case strings.IndexByte(code, 0) >= 0:
		return Errorf(CodeBadRequest, "the code has a NUL byte in it, so it is not program text")
	}
	return nil
}

// NotUTF8 returns the error for a client's text that is not UTF-8, or that is UTF-8
// only by chance.
func NotUTF8[T string | []byte](what string, text T) error {
	if isUTF16(string(text[:min(len(text), 64)])) {
		return Errorf(CodeBadRequest, "%s is UTF-16 text: save it as UTF-8, in PowerShell with Out-File -Encoding utf8 in place of >", what)
	}
	return Errorf(CodeBadRequest, "%s is not UTF-8 text", what)
}

// isUTF16 reports whether text begins as UTF-16 does: with a byte order mark, or with
// characters in which every other byte is 0.
func isUTF16(text string) bool {
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return true
	}
	return len(text) >= 4 && (text[0] == 0) != (text[1] == 0) && (text[0] == 0) == (text[2] == 0) && (text[1] == 0) == (text[3] == 0)
}
