// Package telemetry sets up logging and metrics. It imports nothing of ours.
package telemetry

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// NewLogger returns a logger that writes to out. Format is "json", "text", or
// "auto": text on a terminal, else JSON. Level is one of zerolog's, from
// "debug" to "error".
func NewLogger(out *os.File, format, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), fmt.Errorf("there is no log level %q: use debug, info, warn or error", level)
	}
	var w io.Writer = out
	switch format {
	case "json":
	case "text", "auto":
		if format == "text" || isatty.IsTerminal(out.Fd()) {
			w = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly, NoColor: !isatty.IsTerminal(out.Fd())}
		}
	default:
		return zerolog.Nop(), fmt.Errorf("there is no log format %q: use json, text or auto", format)
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}
