package faas

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The limits of a version's plain environment.
const (
	maxEnv     = 100
	maxEnvSize = 32 << 10 // bytes, of all names and values together
)

// Env is the plain environment of a version, as the JSON object that the API shows,
// with its names in order. Without variables it is "". Being text, it cannot be changed
// by accident, and Settings stay comparable.
type Env string

// Map returns the variables by name.
func (e Env) Map() map[string]string {
	variables := map[string]string{}
	if e != "" {
		// newEnv made it, so it is valid.
		_ = json.Unmarshal([]byte(e), &variables)
	}
	return variables
}

// MarshalJSON implements json.Marshaler.
func (e Env) MarshalJSON() ([]byte, error) {
	if e == "" {
		return []byte("{}"), nil
	}
	return []byte(e), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *Env) UnmarshalJSON(text []byte) error {
	var variables map[string]string
	if err := json.Unmarshal(text, &variables); err != nil {
		return err
	}
	var err error
	*e, err = newEnv(variables)
	return err
}

func newEnv(variables map[string]string) (Env, error) {
	if len(variables) == 0 {
		return "", nil
	}
	text, err := json.Marshal(variables)
	return Env(text), err
}

// Names is a sorted list of distinct names, with commas between them. It is text for
// the same reasons as Env.
type Names string

// List returns the names.
func (n Names) List() []string {
	if n == "" {
		return []string{}
	}
	return strings.Split(string(n), ",")
}

// MarshalJSON implements json.Marshaler.
func (n Names) MarshalJSON() ([]byte, error) { return json.Marshal(n.List()) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Names) UnmarshalJSON(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return err
	}
	*n = newNames(names)
	return nil
}

func newNames(names []string) Names {
	return Names(strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ","))
}

// parseEnv reads "A=1,B=2" or a JSON object of strings. An empty text is no variables.
// Its errors never show a value, because somebody may have put a secret there by
// mistake.
func parseEnv(text string) (Env, error) {
	variables := map[string]string{}
	add := func(name, value string) error {
		if _, twice := variables[name]; twice {
			return fmt.Errorf("%q is given twice", clip(name, 80))
		}
		variables[name] = value
		return nil
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := eachText(text, add); err != nil {
			return "", err
		}
	} else if text != "" {
		for pair := range strings.SplitSeq(text, ",") {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return "", errors.New(`not NAME=VALUE,…; for a value with a comma in it send a JSON object, {"NAME": "VALUE"}`)
			}
			if err := add(name, value); err != nil {
				return "", err
			}
		}
	}
	if len(variables) > maxEnv {
		return "", errRange
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if err := CheckVariable(name); err != nil {
			return "", err
		}
		value := variables[name]
		if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
			return "", fmt.Errorf("the value of %s is not UTF-8 text, or has a NUL in it", name)
		}
		size += len(name) + len(value)
	}
	if size > maxEnvSize {
		return "", errRange
	}
	return newEnv(variables)
}

// eachText calls give for each member of a JSON object of strings.
func eachText(object string, give func(name, value string) error) error {
	if !json.Valid([]byte(object)) {
		return errors.New("not valid JSON")
	}
	d := json.NewDecoder(strings.NewReader(object))
	d.Token() // the brace
	for d.More() {
		name, _ := d.Token()
		value, _ := d.Token()
		text, ok := value.(string)
		if !ok {
			return errors.New(`not a JSON object of texts such as {"A": "1"}`)
		}
		if err := give(name.(string), text); err != nil {
			return err
		}
	}
	return nil
}

// parseNames reads "A,B" or a JSON list of strings. An empty text is no names.
func parseNames(text string) (Names, error) {
	var given []string
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		if json.Unmarshal([]byte(text), &given) != nil {
			return "", errors.New(`not a JSON list of names such as ["A", "B"]`)
		}
	} else if text != "" {
		given = strings.Split(text, ",")
	}
	for _, name := range given {
		if err := CheckVariable(name); err != nil {
			return "", err
		}
	}
	names := newNames(given)
	if len(names.List()) > MaxSecretsOfVersion {
		return "", errRange
	}
	return names, nil
}

// bothPlainAndSecret returns a name that is both in env and in secrets.
func bothPlainAndSecret(s *Settings) (name string, both bool) {
	if s.Env == "" || s.Secrets == "" {
		return "", false
	}
	plain := s.Env.Map()
	for _, name := range s.Secrets.List() {
		if _, both := plain[name]; both {
			return name, true
		}
	}
	return "", false
}

// Variables that take effect only when a process starts. A driver has already started
// when it gets a function's variables. It makes most of them take effect; it cannot do
// so for these.
var (
	startOnly = []string{"GLIBC_TUNABLES", "OPENSSL_CONF"}

	nodeStartOnly = []string{
		"NODE_CHANNEL_FD", "NODE_COMPILE_CACHE", "NODE_DEBUG", "NODE_DEBUG_NATIVE", "NODE_ICU_DATA", "NODE_PENDING_DEPRECATION", "NODE_PRESERVE_SYMLINKS",
		"NODE_PRESERVE_SYMLINKS_MAIN", "NODE_REDIRECT_WARNINGS", "NODE_USE_ENV_PROXY", "NODE_USE_SYSTEM_CA", "NODE_V8_COVERAGE", "UV_USE_IO_URING",
	}

	// Node takes its locale from these. It is en-US without them, or with these values.
	nodeLocale  = []string{"LANG", "LC_ALL", "LC_MESSAGES"}
	usualLocale = regexp.MustCompile(`^(?:C|POSIX|en_US)(?:\.[\w-]+)?$`)
)

// CheckEnvironment returns an error that names a variable which cannot have the effect
// that it would have on a newly started process, or nil.
func CheckEnvironment(lang string, s Settings) error {
	env := s.Env.Map()
	for _, name := range append(slices.Sorted(maps.Keys(env)), s.Secrets.List()...) {
		value, plain := env[name]
		switch {
		case slices.Contains(startOnly, name), lang == "node" && (slices.Contains(nodeStartOnly, name) || strings.HasPrefix(name, "MALLOC_")):
			return Errorf(CodeBadRequest, "%s takes effect only when a process starts, and a sandbox's process starts before it gets its variables: leave it out", name)
		case lang == "node" && slices.Contains(nodeLocale, name) && !(plain && usualLocale.MatchString(value)):
			return Errorf(CodeBadRequest, "%s can only be C or en_US in Node, whose locale is set as it starts: leave it out, and name a locale where it matters, as in toLocaleString('de')", name)
		}
	}
	return nil
}
