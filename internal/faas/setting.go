package faas

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Setting declares one setting of a T, such as a function's timeout. Parsing, default,
// error messages and documentation of the setting all come from this declaration.
type Setting[T any] struct {
	Name     string
	Everyday bool   // most people need it; other settings are for tuning
	Private  bool   // errors do not show its value
	Doc      string // what it is: a clause, in Markdown
	More     string // what else there is to know: sentences, in Markdown
	Example  string // an example value, as in a query
	Value[T]
}

// Value declares the values that a setting of a T may have, and the field that keeps
// them.
type Value[T any] struct {
	Type    string // type in JSON: "string", "integer", "number", "boolean", "object" or "array"
	Default string // as in a query
	Range   string // for people
	Schema  string // more about the range: JSON Schema keywords, one a line

	preset func(*T) // sets the default
	parse  func(*T, string) error
	assign func(to, from *T)
}

// value declares a setting that has a field of its own type V, whose text parse reads.
func value[T, V any](kind string, field func(*T) *V, preset V, span, schema string, parse func(string) (V, error)) Value[T] {
	return Value[T]{
		Type: kind, Default: spell(preset), Range: span, Schema: schema,
		preset: func(of *T) { *field(of) = preset },
		parse: func(of *T, text string) error {
			v, err := parse(text)
			if err == nil {
				*field(of) = v
			}
			return err
		},
		assign: func(to, from *T) { *field(to) = *field(from) },
	}
}

var errRange = errors.New("out of range")

// within declares a setting from low to high. If parse fails, meant (if not nil)
// guesses what was meant and says what is wrong with the text.
func within[T any, V cmp.Ordered](kind string, field func(*T) *V, preset, low, high V, parse func(string) (V, error), meant func(string) (wrong string, guesses []string)) Value[T] {
	fitting := func(text string) (V, error) {
		v, err := parse(text)
		if err == nil && !(low <= v && v <= high) { // refuses NaN, too
			err = errRange
		}
		return v, err
	}
	schema := ""
	if kind != "string" {
		schema = fmt.Sprintf("minimum: %v\nmaximum: %v", low, high)
	}
	return value(kind, field, preset, spell(low)+" to "+spell(high), schema, func(text string) (V, error) {
		v, err := fitting(text)
		if err == nil || meant == nil {
			return v, err
		}
		wrong, guesses := meant(text)
		for _, guess := range guesses {
			if _, bad := fitting(guess); bad == nil {
				return v, fmt.Errorf("%s: write %s", wrong, guess)
			}
		}
		return v, err
	})
}

func whole[T any](field func(*T) *int, preset, low, high int) Value[T] {
	return within("integer", field, preset, low, high, func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, errors.New("not a whole number")
		}
		return n, nil
	}, nil)
}

func number[T any](field func(*T) *float64, preset, low, high float64) Value[T] {
	return within("number", field, preset, low, high, func(text string) (float64, error) {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, errors.New("not a number")
		}
		return n, nil
	}, func(text string) (string, []string) {
		thousandths, ok := strings.CutSuffix(text, "m") // as in Kubernetes
		n, err := strconv.ParseFloat(thousandths, 64)
		if !ok || err != nil {
			return "", nil
		}
		return "not a number", []string{spell(n / 1000)}
	})
}

func duration[T any](field func(*T) *Duration, preset, low, high time.Duration) Value[T] {
	return within("string", field, Duration(preset), Duration(low), Duration(high), func(text string) (d Duration, err error) {
		if d.UnmarshalText([]byte(text)) != nil {
			return 0, errors.New("not a duration such as 500ms, 30s or 5m")
		}
		return d, nil
	}, func(text string) (string, []string) {
		if !plainNumber.MatchString(text) {
			return "", nil
		}
		return "it has no unit", []string{text + "s", text + "ms"} // the range may tell which unit
	})
}

func size[T any](field func(*T) *Bytes, preset, low, high Bytes) Value[T] {
	return within("string", field, preset, low, high, func(text string) (b Bytes, err error) {
		return b, b.UnmarshalText([]byte(text))
	}, func(text string) (string, []string) {
		if !plainNumber.MatchString(text) {
			return "", nil
		}
		return "that is bytes", []string{text + "MB"}
	})
}

func truth[T any](field func(*T) *bool) Value[T] {
	return value("boolean", field, false, "true or false", "", func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, errors.New("neither true nor false")
		}
		return text == "true", nil
	})
}

// spell writes a setting's value as people do.
func spell(v any) string {
	text, _ := json.Marshal(v) // cannot fail for a setting's value
	s := strings.Trim(string(text), `"`)
	for _, zero := range []string{"m0s", "h0m"} { // JSON has 1h0m0s for 1h
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// SettingsPatch holds the settings that somebody gave for a function. The zero value
// holds none.
type SettingsPatch struct {
	values Settings
	given  map[string]bool // by name
}

// Set adds a setting, read from text as a query has it. It fails with CodeBadRequest if
// there is no such setting, or if text is not a value of it.
func (p *SettingsPatch) Set(name, text string) error {
	s := FindSetting(name)
	if s == nil {
		return UnknownSetting(name)
	}
	if err := s.parse(&p.values, text); err != nil {
		if !s.Private {
			name += "=" + clip(text, 80)
		}
		doc := strings.ReplaceAll(s.Doc, "`", "") // an error is no Markdown
		return Errorf(CodeBadRequest, "%s: %v (%s, %s)", name, err, doc, s.Range)
	}
	if p.given == nil {
		p.given = make(map[string]bool)
	}
	p.given[name] = true
	return nil
}

// Has reports whether a setting was given.
func (p SettingsPatch) Has(name string) bool { return p.given[name] }

// Empty reports whether none was given.
func (p SettingsPatch) Empty() bool { return len(p.given) == 0 }

// Apply returns base with the patch's settings. What does not go together is
// CodeBadRequest.
func (p SettingsPatch) Apply(base Settings) (Settings, error) {
	for _, s := range SettingTable {
		if p.given[s.Name] {
			s.assign(&base, &p.values)
		}
	}
	return base, base.check()
}

// FindSetting returns the setting of that name, or nil.
func FindSetting(name string) *Setting[Settings] {
	for i := range SettingTable {
		if SettingTable[i].Name == name {
			return &SettingTable[i]
		}
	}
	return nil
}

// SettingNames returns the names of all settings.
func SettingNames() []string {
	names := make([]string, len(SettingTable))
	for i, s := range SettingTable {
		names[i] = s.Name
	}
	return names
}

// UnknownSetting is the error for a name that no setting has, where the names in
// also may stand too.
func UnknownSetting(name string, also ...string) error {
	return Errorf(CodeBadRequest, "there is no setting %q; there are %s", clip(name, 80), strings.Join(append(also, SettingNames()...), ", "))
}
