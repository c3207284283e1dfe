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

// Live is the alias that every function has; a ref that says neither a
// version nor an alias means it.
const Live = "live"

// Function is what a user registers. It is immutable: a change makes a new
// value. Of its versions it holds the live one; the others are the store's to
// tell, for there may be many, and hardly any is asked for.
type Function struct {
	ID       string         `json:"id"`             // a UUID
	Name     string         `json:"name,omitempty"` // unique, or empty
	Created  time.Time      `json:"created"`
	Aliases  map[string]int `json:"aliases"`  // alias → version number; has Live
	Versions []int          `json:"versions"` // the numbers of those that are kept, ascending
	Current  *Version       `json:"-"`        // the one that Live points to
}

// Version is a function's code, language and settings. It never changes. Its
// code is kept apart (Store.Code), for it is needed only when a sandbox loads.
type Version struct {
	FunctionID string    `json:"function"`
	Number     int       `json:"version"` // 1, 2, 3 … inside its function
	Lang       string    `json:"lang"`
	Settings   Settings  `json:"settings"`
	Created    time.Time `json:"created"`
	Size       int       `json:"size"`   // of the code, in bytes
	Digest     string    `json:"digest"` // "sha256:" and 64 hexadecimal digits, of the code
}

// Digest returns the digest of code, as a version has it.
func Digest(code string) string {
	sum := sha256.Sum256([]byte(code))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// VersionKey names a version without holding it.
type VersionKey struct {
	FunctionID string `json:"function"`
	Number     int    `json:"version"`
}

// Key returns the version's key.
func (v *Version) Key() VersionKey { return VersionKey{v.FunctionID, v.Number} }

// Has reports whether the function has a version of that number, and has it still.
func (f *Function) Has(number int) bool {
	_, ok := slices.BinarySearch(f.Versions, number)
	return ok
}

// Live returns the version that the alias live points to.
func (f *Function) Live() *Version { return f.Current }

// Latest returns the highest number of a version, 0 when there is none yet.
func (f *Function) Latest() int {
	if len(f.Versions) == 0 {
		return 0
	}
	return f.Versions[len(f.Versions)-1]
}

// With returns a copy of f that has one more version, which live points to.
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

// Without returns a copy of f that lacks some versions.
func (f *Function) Without(numbers []int) *Function {
	next := *f
	next.Versions = slices.DeleteFunc(slices.Clone(f.Versions), func(n int) bool { return slices.Contains(numbers, n) })
	return &next
}

// Surplus returns the versions, oldest first, that are neither among the newest,
// as many as keep_versions of the live one says, nor what an alias points to.
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

// Draft is what a client hands in to become a version.
type Draft struct {
	Code     string
	Lang     string // empty: that of the live version, else python
	Settings SettingsPatch
}

// SandboxInfo tells about one sandbox that runs a version.
type SandboxInfo struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // "ready", "busy", "paused" or "draining"
	Host     string    `json:"host"`  // as the engine's network knows it
	Port     int       `json:"port"`  // of the driver, which asks for the sandbox's token there
	InFlight int       `json:"in_flight"`
	Started  time.Time `json:"started"`
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// CheckName says what is wrong with a function's name, or nil. A name is 1 to
// 63 letters, digits, - and _, begins with a letter or digit, and does not
// look like an ID, so that a ref is never ambiguous.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return Errorf(CodeBadRequest, "%q is no function name: use 1 to 63 letters, digits, - and _, beginning with a letter or digit", clip(name, 80))
	}
	if uuid.Validate(name) == nil {
		return Errorf(CodeBadRequest, "%q looks like a function ID: choose a name that does not", name)
	}
	return nil
}

// clip shortens user input for a message.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}

// Lang returns the language that a client means, whatever of its usual names it
// says. What is none of these stays as it is.
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

// NoTypes says what to do with TypeScript, behind a sentence that calls it so.
const NoTypes = "which there is no driver for: make JavaScript of it, as with npx esbuild hello.ts > hello.js, and add lang=node"

// CheckLang fails with CodeUnknownLanguage for a language that is not among those
// that there are drivers for.
func CheckLang(lang string, drivers []string) error {
	if slices.Contains(drivers, lang) {
		return nil
	}
	if lang == "ts" || lang == "tsx" || lang == "typescript" {
		return Errorf(CodeUnknownLanguage, "this is TypeScript, %s", NoTypes)
	}
	return Errorf(CodeUnknownLanguage, "there is no driver for the language %.40q; there are %v", lang, drivers)
}

// TooMuchMemory is told, with that code, to who wants a sandbox of more memory than
// all may have together.
func TooMuchMemory(code Code, memory, all Bytes) error {
	return Errorf(code, "memory=%v is more than all sandboxes together may have, %v: give it less, or raise FOB_MAX_MEMORY", memory, all)
}

// CheckCode says what is wrong with code before any language looks at it.
func CheckCode(code string) error {
	switch {
	case strings.TrimSpace(strings.TrimPrefix(code, "\ufeff")) == "":
		return Errorf(CodeBadRequest, "there is no code: send the code fragment as the body, as with curl --data-binary @hello.py")
	case !utf8.ValidString(code) || isUTF16(code):
		return NotUTF8("the code", code)
	case strings.IndexByte(code, 0) >= 0:
		return Errorf(CodeBadRequest, "the code has a NUL byte in it, so it is no program text")
	}
	return nil
}

// NotUTF8 returns the error for text of a client's that is not UTF-8, or is but
// by chance.
func NotUTF8[T string | []byte](what string, text T) error {
	if isUTF16(string(text[:min(len(text), 64)])) {
		return Errorf(CodeBadRequest, "%s is UTF-16 text: save it as UTF-8, in PowerShell with Out-File -Encoding utf8 in place of >", what)
	}
	return Errorf(CodeBadRequest, "%s is not UTF-8 text", what)
}

// isUTF16 reports whether text begins as UTF-16 does: with a mark, or with
// characters every other byte of which is NUL.
func isUTF16(text string) bool {
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return true
	}
	return len(text) >= 4 && (text[0] == 0) != (text[1] == 0) && (text[0] == 0) == (text[2] == 0) && (text[1] == 0) == (text[3] == 0)
}
