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
		a, b := c.Driver, c.Dispatcher
		fmt.Fprintf(w, "%s\t%d\tdriver's socket\t%.0f\t%s\t%s\t\n", c.Lang, c.Clients, a.CallsPerSecond, ms(a.P50), ms(a.P99))
		fmt.Fprintf(w, "\t\tdispatcher\t%.0f\t%s\t%s\t\n", b.CallsPerSecond, ms(b.P50), ms(b.P99))
		fmt.Fprintf(w, "\t\tratio\t%.2f\t%.2f\t%.2f\t\n", b.CallsPerSecond/a.CallsPerSecond, ratio(b.P50, a.P50), ratio(b.P99, a.P99))
	}
	w.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
