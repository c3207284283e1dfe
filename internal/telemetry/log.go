// Package telemetry sets up logging and metrics. It imports no other package of this
// module.
package telemetry

import (
	"fmt"
	"io"
	stdlog "log"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// NewLogger returns a logger that writes to out, which is an *Output or a file. Format
// is "json", "text", or "auto", which means text on a terminal and JSON elsewhere.
// Level is one of zerolog's, from "debug" to "error".
func NewLogger(out destination, format, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), fmt.Errorf("there is no log level %q: use debug, info, warn or error", level)
	}
	var w io.Writer = neutral{out} // JSON needs no more: it escapes strings
	switch format {
	case "json":
	case "text", "auto":
		if format == "text" || isatty.IsTerminal(out.Fd()) {
			w = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly, NoColor: !isatty.IsTerminal(out.Fd()), FormatPrepare: neutralize}
		}
	default:
		return zerolog.Nop(), fmt.Errorf("there is no log format %q: use json, text or auto", format)
	}
	log := zerolog.New(w).Level(l).With().Timestamp().Logger()
	if o, slow := out.(*Output); slow {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.tell = func(missing int) {
			log.Warn().Int("lines", missing).Msg("lines of the log are missing here: nobody read it")
		}
	}
	return log, nil
}

// Standard returns a logger for packages such as net/http. Each entry becomes a
// warning.
func Standard(log zerolog.Logger) *stdlog.Logger { return stdlog.New(entries{log}, "", 0) }

// entries is a writer that makes a warning of each entry that it gets.
type entries struct{ log zerolog.Logger }

// Write implements io.Writer.
func (e entries) Write(p []byte) (int, error) {
	e.log.Warn().Msg(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
