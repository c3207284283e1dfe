package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// The markers around the table in docs/inside/reliability.md.
const markerBegin, markerEnd = "<!-- make faults: begin -->", "<!-- make faults: end -->"

// print writes the table as Markdown, to be pasted between the markers.
func (r *results) print(w io.Writer) {
	how := "full"
	if r.Quick {
		how = "quick"
	}
	fmt.Fprintf(w, "\n%s\n%s run of commit %s, seed %d, %s, %s.\n\n", markerBegin, strings.ToUpper(how[:1])+how[1:], r.Commit, r.Seed, r.When.Format(time.DateOnly), r.Machine)
	fmt.Fprintf(w, "| row | result | figures | s |\n|---|---|---|---|\n")
	for _, row := range r.Rows {
		verdict := "held"
		if n := len(row.Violations); n > 0 {
			verdict = fmt.Sprintf("**%d violations**", n)
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %.0f |\n", row.Row, verdict, strings.Join(row.Figures, "; "), row.Seconds)
	}
	fmt.Fprintln(w, markerEnd)
}

// machine describes the machine without naming it.
func machine() string {
	model, memory := "", ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		model = field(string(text), "model name")
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kilobytes int
		fmt.Sscan(field(string(text), "MemTotal"), &kilobytes)
		memory = fmt.Sprintf(", %d GB", (kilobytes+1<<19)>>20)
	}
	return fmt.Sprintf("%d × %s%s", runtime.NumCPU(), model, memory)
}

// field returns the value of the first line NAME: VALUE in a file of /proc.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
