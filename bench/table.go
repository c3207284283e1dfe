package main

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"
)

// table prints the results for people.
func table(out io.Writer, r results) {
	fmt.Fprintf(out, "\ncommit %.12s, %s, %d CPUs\n\n", r.Commit, r.When.Format(time.DateOnly), runtime.NumCPU())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "POST /api/gen\tblank sandbox\tmedian\tmax\tn\t")
	for _, g := range r.Registrations {
		from := "to be started"
		if g.Pooled {
			from = "in the pool"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t\n", g.Lang, from, ms(g.Median), ms(g.Max), g.Count)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "no-op call\tclients\t\tcalls/s\tp50\tp99\t")
	for _, c := range r.Calls {
		row := func(lang, clients, way string, l load) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%s\t\n", lang, clients, way, l.CallsPerSecond, ms(l.P50), ms(l.P99))
		}
		row(c.Lang, fmt.Sprint(c.Clients), "(a) driver's socket", c.Driver)
		row("", "", "(b) reverse proxy", c.Proxy)
		row("", "", "(c) dispatcher", c.Dispatcher)
		times := func(way string, l load) {
			fmt.Fprintf(w, "\t\t%s\t× %.2f\t× %.2f\t× %.2f\t\n", way, c.Dispatcher.CallsPerSecond/l.CallsPerSecond, ratio(c.Dispatcher.P50, l.P50), ratio(c.Dispatcher.P99, l.P99))
		}
		times("(c) to (a)", c.Driver)
		times("(c) to (b)", c.Proxy)
	}
	w.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
