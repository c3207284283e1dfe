package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// target is a figure that the dispatcher should reach.
type target struct {
	What       string
	AtLeast    bool // otherwise at most
	Limit, Got float64
	Unit       string
	Met        bool
}

func atLeast(limit, got float64, unit, format string, args ...any) target {
	return target{fmt.Sprintf(format, args...), true, limit, got, unit, got >= limit}
}

func atMost(limit, got float64, unit, format string, args ...any) target {
	return target{fmt.Sprintf(format, args...), false, limit, got, unit, got <= limit}
}

func printTargets(out io.Writer, targets []target) {
	if len(targets) == 0 {
		return
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range targets {
		sign, mark := "≤", "✗"
		if t.AtLeast {
			sign = "≥"
		}
		if t.Met {
			mark = "✓"
		}
		fmt.Fprintf(w, "%s\t%s %s%s:\t%s%s %s\n", t.What, sign, figure(t.Limit), t.Unit, figure(t.Got), t.Unit, mark)
	}
	w.Flush()
}

// figure writes small numbers with two decimals and large ones with none.
func figure(f float64) string {
	if f >= 100 || f == float64(int(f)) {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func newTable(out io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func ms(d time.Duration) string {
	places := 1
	switch {
	case d < time.Millisecond:
		places = 3
	case d < 100*time.Millisecond:
		places = 2
	}
	return fmt.Sprintf("%.*f ms", places, millis(d))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func megabytes(bytes float64) string { return fmt.Sprintf("%.1f MB", bytes/(1<<20)) }
