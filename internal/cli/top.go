package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/term"

	"github.com/flockofbirds/fob/api"
)

// Top is the command that shows what functions do now.
type Top struct {
	Remote
	Every time.Duration `default:"2s" placeholder:"DURATION" help:"How long between two looks (${default})."`
	Once  bool          `help:"Print one look, and end."`
	JSON  bool          `name:"json" help:"Print each function as a line of JSON, at each look."`
}

// activity is what a function did between two looks.
type activity struct {
	Function  string  `json:"function"`
	Name      string  `json:"name,omitempty"`
	Rate      float64 `json:"rate"`   // calls a second
	Errors    float64 `json:"errors"` // a second
	P50       float64 `json:"p50"`    // seconds; of the time that the function ran
	P95       float64 `json:"p95"`
	Sandboxes *int    `json:"sandboxes,omitempty"` // nil if the dispatcher does not tell
	Wanted    *int    `json:"wanted,omitempty"`    // sandboxes that the scaler wants
	Waiting   int     `json:"waiting"`
}

// Run implements the command.
func (c *Top) Run(running Running) error {
	if c.Every < 100*time.Millisecond {
		return errors.New("--every is a duration of 100ms or more")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.with(running, func(l *link) error {
		out := newScreen(os.Stdout)
		before, err := l.look(ctx)
		for first := true; err == nil; first = false {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(c.Every):
			}
			var now *look
			if now, err = l.look(ctx); err != nil {
				break
			}
			err = c.print(out, now.since(before), first)
			before = now
			if c.Once {
				break
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
}

// print shows a look. On a terminal it takes the place of the one before.
func (c *Top) print(out *screen, all []activity, first bool) error {
	if c.JSON {
		for i := range all {
			out.line(&all[i])
		}
		return out.Flush()
	}
	t := &table{header: []string{"FUNCTION", "CALLS/S", "ERRORS/S", "P50", "P95", "SANDBOXES", "WANTED", "WAITING"}, colour: func(column int, text string) colour {
		if column == 2 && text != "0" || column == 7 && text != "0" {
			return red
		}
		return plain
	}}
	for _, a := range all {
		name := a.Name
		if name == "" {
			name = a.Function
		}
		t.add(name, perSecond(a.Rate), perSecond(a.Errors), seconds(a.P50), seconds(a.P95), number(a.Sandboxes), number(a.Wanted), strconv.Itoa(a.Waiting))
	}
	if out.columns > 0 && !c.Once {
		_, rows, err := term.GetSize(int(os.Stdout.Fd()))
		if err == nil && rows > 2 && len(t.rows) > rows-2 {
			t.rows = t.rows[:rows-2]
		}
		out.WriteString("\x1b[H\x1b[2J")
	} else if !first {
		out.WriteByte('\n')
	}
	out.print(t)
	return out.Flush()
}

// number spells a number that may not be known.
func number(n *int) string {
	if n == nil {
		return "-"
	}
	return strconv.Itoa(*n)
}

// perSecond spells a rate.
func perSecond(rate float64) string {
	if rate == 0 {
		return "0"
	}
	return strconv.FormatFloat(rate, 'f', 1, 64)
}

// seconds spells a duration in seconds, which is 0 if there was nothing to measure.
func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	if s < 1 {
		return fmt.Sprintf("%.1fms", s*1000)
	}
	return fmt.Sprintf("%.2fs", s)
}

// look is the metrics at a moment.
type look struct {
	at       time.Time
	families map[string]*dto.MetricFamily
	names    map[string]string // of functions, by ID
}

// look reads the metrics.
func (l *link) look(ctx context.Context) (*look, error) {
	now := &look{}
	err := l.ask(ctx, http.MethodGet, "/metrics", nil, func(r *http.Response) (err error) {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		now.families, err = parser.TextToMetricFamilies(r.Body)
		now.at = time.Now()
		return err
	})
	if err != nil {
		return nil, err
	}
	now.names = map[string]string{}
	infos, told := now.families["fob_function_info"]
	for _, m := range infos.GetMetric() {
		labels := labelsOf(m)
		now.names[labels["function"]] = labels["name"]
	}
	if !told { // by a dispatcher of an earlier version
		err = l.functions(ctx, "", func(fn *api.Function) error {
			now.names[fn.ID] = fn.Name
			return nil
		})
	}
	return now, err
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, pair := range m.GetLabel() {
		labels[pair.GetName()] = pair.GetValue()
	}
	return labels
}

// sum adds up what a metric has for each function. keep says which of its series count.
func (k *look) sum(metric string, keep func(labels map[string]string) bool, value func(*dto.Metric) float64) map[string]float64 {
	sums := map[string]float64{}
	for _, m := range k.families[metric].GetMetric() {
		labels := labelsOf(m)
		if function := labels["function"]; function != "" && (keep == nil || keep(labels)) {
			sums[function] += value(m)
		}
	}
	return sums
}

// buckets returns how many calls of each function took up to so many seconds.
func (k *look) buckets() map[string]map[float64]float64 {
	all := map[string]map[float64]float64{}
	for _, m := range k.families["fob_call_run_seconds"].GetMetric() {
		function := labelsOf(m)["function"]
		of := all[function]
		if of == nil {
			of = map[float64]float64{}
			all[function] = of
		}
		for _, b := range m.GetHistogram().GetBucket() {
			of[b.GetUpperBound()] += float64(b.GetCumulativeCount())
		}
	}
	return all
}

// since returns what functions did since another look, the busiest first.
func (k *look) since(before *look) []activity {
	counter := func(m *dto.Metric) float64 { return m.GetCounter().GetValue() }
	gauge := func(m *dto.Metric) float64 { return m.GetGauge().GetValue() }
	failed := func(labels map[string]string) bool { return labels["outcome"] != "ok" }
	calls, errs := k.sum("fob_calls_total", nil, counter), k.sum("fob_calls_total", failed, counter)
	had, hadErrs := before.sum("fob_calls_total", nil, counter), before.sum("fob_calls_total", failed, counter)
	have, wanted, waiting := k.sum("fob_scaler_sandboxes", nil, gauge), k.sum("fob_scaler_wanted_sandboxes", nil, gauge), k.sum("fob_queue_depth", nil, gauge)
	times, hadTimes := k.buckets(), before.buckets()
	interval := max(k.at.Sub(before.at).Seconds(), 1e-3)

	var all []activity
	for id, name := range k.names {
		a := activity{Function: id, Name: name, Waiting: int(waiting[id])}
		a.Rate = max(0, calls[id]-had[id]) / interval
		a.Errors = max(0, errs[id]-hadErrs[id]) / interval
		a.P50, a.P95 = quantile(0.5, times[id], hadTimes[id]), quantile(0.95, times[id], hadTimes[id])
		if k.families["fob_scaler_sandboxes"] != nil {
			has, wants := int(have[id]), int(wanted[id])
			a.Sandboxes, a.Wanted = &has, &wants
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b activity) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(have[b.Function], have[a.Function]), strings.Compare(a.Name, b.Name), strings.Compare(a.Function, b.Function))
	})
	return all
}

// quantile returns which value a share of the observations between two histograms does
// not exceed, as far as their buckets tell, or 0 if there were none. Keys are the upper
// bounds of buckets, and values count up.
func quantile(share float64, now, before map[float64]float64) float64 {
	bounds := make([]float64, 0, len(now))
	for bound := range now {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	if len(bounds) == 0 {
		return 0
	}
	count := func(bound float64) float64 { return now[bound] - before[bound] }
	rank := share * count(bounds[len(bounds)-1])
	if rank <= 0 {
		return 0
	}
	low, below := 0.0, 0.0
	for _, bound := range bounds {
		n := count(bound)
		if n >= rank {
			if math.IsInf(bound, 1) {
				return low
			}
			return low + (bound-low)*(rank-below)/(n-below)
		}
		low, below = bound, n
	}
	return low
}
