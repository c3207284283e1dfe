package faas

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Duration is a time.Duration whose JSON is text, such as "1m30s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Age is a time.Duration whose text may be in days, such as "7d".
type Age time.Duration

const day = 24 * time.Hour

// MarshalText implements encoding.TextMarshaler.
func (a Age) MarshalText() ([]byte, error) {
	if d := time.Duration(a); d >= day && d%day == 0 {
		return fmt.Appendf(nil, "%dd", d/day), nil
	}
	return Duration(a).MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Age) UnmarshalText(text []byte) error {
	if days, found := strings.CutSuffix(string(text), "d"); found {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return errors.New("not an age such as 7d or 12h")
		}
		*a = Age(time.Duration(n) * day)
		return nil
	}
	return (*Duration)(a).UnmarshalText(text)
}

// String returns what MarshalText does.
func (a Age) String() string {
	text, _ := a.MarshalText()
	return string(text)
}

// Bytes is a number of bytes whose JSON is text, such as "128MB". As with Docker, units
// are powers of 1024 however they are spelled.
type Bytes int64

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, unit := range []struct {
		size Bytes
		name string
	}{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if b >= unit.size && b%unit.size == 0 {
			return fmt.Appendf(nil, "%d%s", b/unit.size, unit.name), nil
		}
	}
	return fmt.Appendf(nil, "%dB", int64(b)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	if size := len(text); size > 0 && text[size-1] == 'i' { // 256Mi, as in Kubernetes
		text = append(text[:size:size], 'B')
	}
	n, err := units.RAMInBytes(string(text))
	if err != nil {
		return errors.New("not a size such as 128MB or 1GB")
	}
	*b = Bytes(n)
	return nil
}

// String returns what MarshalText does.
func (b Bytes) String() string {
	text, _ := b.MarshalText()
	return string(text)
}

// plainNumber is a number without a unit.
var plainNumber = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)?$`)
