package history

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opened is a history in a folder that a test has.
type opened struct {
	*History
	t       *testing.T
	data    string
	missing atomic.Int64
	errs    chan error
}

func open(t *testing.T, data string, change func(*Config)) *opened {
	t.Helper()
	o := &opened{t: t, data: data, errs: make(chan error, 100)}
	cfg := Config{
		Data: data, MaxBytes: 64 << 20,
		Function: func(id string) string { return "name of " + id },
		Lost:     func(calls int) { o.missing.Add(int64(calls)) },
		Failed:   func(err error) { o.errs <- err },
	}
	if change != nil {
		change(&cfg)
	}
	h, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o.History = h
	t.Cleanup(func() { h.Close() })
	return o
}

// call is a call that went well, changed.
func call(i int, change func(*faas.CallRecord)) faas.CallRecord {
	c := faas.CallRecord{
		ID: fmt.Sprint("call-", i), Function: "f1", Outcome: "ok", Version: 1, State: faas.CallDone, Started: time.Now().UTC().Truncate(time.Microsecond),
		Timing: faas.CallTiming{Run: float64(i), Total: float64(i)}, Status: 200, Method: "GET", Path: "/api/call/x", Caller: "anonymous",
	}
	if change != nil {
		change(&c)
	}
	return c
}

// written waits until all that was recorded is written.
func (o *opened) written() {
	o.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		n := len(o.waiting)
		o.mu.Unlock()
		if n == 0 && o.journal.Sync() == nil { // flush may still be writing what it took
			break
		}
		if time.Now().After(end) {
			o.t.Fatal("it is never written")
		}
	}
}

// ids returns the IDs of the calls that match, in their order.
func (o *opened) ids(query faas.CallQuery) string {
	o.t.Helper()
	var ids []string
	for c, err := range o.Calls(query, nil) {
		if err != nil {
			o.t.Fatal(err)
		}
		if c.Omitted > 0 {
			ids = append(ids, fmt.Sprint("omitted-", c.Omitted))
			continue
		}
		ids = append(ids, strings.TrimPrefix(c.Call.ID, "call-"))
	}
	return strings.Join(ids, " ")
}

// eventually waits until the calls that match are those.
func (o *opened) eventually(query faas.CallQuery, want string) {
	o.t.Helper()
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if got = o.ids(query); got == want {
			return
		}
	}
	o.t.Fatalf("there are %q, want %q", got, want)
}

// TestRecords: what is recorded is read as it was, by another one who opens the folder,
// too.
func TestRecords(t *testing.T) {
	data := t.TempDir()
	o := open(t, data, nil)
	failed := call(2, func(c *faas.CallRecord) {
		c.Outcome, c.Name, c.Alias, c.Trace, c.Sandbox, c.Cold, c.Address = "function_raised", "hello", "live", "0af7", "5b", true, "192.0.2.1:5"
		c.Error = &faas.CallError{Type: "KeyError", Message: "quote \" and <tag> and \x00 and ü", Line: 3, Traceback: "a\nb"}
	})
	o.Record(call(1, nil))
	o.Record(failed)
	o.eventually(faas.CallQuery{}, "2 1")
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, data, nil)
	got, err := o.Call("call-2", nil, nil)
	if err != nil || !reflect.DeepEqual(got.Call, failed) || got.Number != 2 {
		t.Errorf("read %+v, %v", got, err)
	}
	if got, err := o.Call("call-1", nil, nil); err != nil || got.Call.Name != "name of f1" {
		t.Errorf("the call that was made by ID is %+v, %v", got.Call, err)
	}
	for _, id := range []string{"call", "call-3", "call-1\"", "", "\xff"} {
		if _, err := o.Call(id, nil, nil); faas.CodeOf(err) != faas.CodeUnknownCall {
			t.Errorf("%q: %v", id, err)
		}
	}
	again := call(1, func(c *faas.CallRecord) { c.Version = 9 })
	o.Record(again)
	o.eventually(faas.CallQuery{}, "1 2 1")
	if got, err := o.Call("call-1", nil, nil); err != nil || got.Call.Version != 9 {
		t.Errorf("of two calls with an ID the older was found: %+v, %v", got, err)
	}
}

// TestQueries: each bound of a query, and no record but those within it.
func TestQueries(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	for i := range 12 {
		o.Record(call(i, func(c *faas.CallRecord) {
			c.Function, c.Version, c.Started = fmt.Sprint("f", i%3), 1+i/6, at.Add(time.Duration(i)*time.Minute)
			c.Caller = "token 0" + fmt.Sprint(i%2) + " (ann \"x\")"
			if i%4 == 3 {
				c.Outcome, c.Error, c.Trace = "timeout", &faas.CallError{Message: fmt.Sprintf("it took \"%d\" s", i)}, fmt.Sprint("trace", i)
			}
			if i == 7 {
				c.Outcome = "cancelled"
			}
		}))
	}
	o.eventually(faas.CallQuery{}, "11 10 9 8 7 6 5 4 3 2 1 0")
	for name, test := range map[string]struct {
		query faas.CallQuery
		want  string
	}{
		"a function":       {faas.CallQuery{Functions: []string{"f1"}}, "10 7 4 1"},
		"functions":        {faas.CallQuery{Functions: []string{"f1", "f2"}}, "11 10 8 7 5 4 2 1"},
		"no functions":     {faas.CallQuery{Functions: []string{}}, ""},
		"a version":        {faas.CallQuery{Version: 2, Functions: []string{"f0"}}, "9 6"},
		"failed":           {faas.CallQuery{Outcome: faas.OutcomeFailed}, "11 7 3"},
		"an outcome":       {faas.CallQuery{Outcome: "timeout"}, "11 3"},
		"ok":               {faas.CallQuery{Outcome: "ok", Functions: []string{"f0"}}, "9 6 0"},
		"a caller":         {faas.CallQuery{Caller: `01 (ann "x")`, Version: 1}, "5 3 1"},
		"a trace":          {faas.CallQuery{Trace: "trace3"}, "3"},
		"a part of one":    {faas.CallQuery{Trace: "trace1"}, ""},
		"since":            {faas.CallQuery{Since: at.Add(9 * time.Minute)}, "11 10 9"},
		"until":            {faas.CallQuery{Until: at.Add(2 * time.Minute)}, "2 1 0"},
		"in the future":    {faas.CallQuery{Since: time.Now().Add(time.Hour)}, ""},
		"long ones":        {faas.CallQuery{MinRun: 10 * time.Millisecond}, "11 10"},
		"text":             {faas.CallQuery{Text: `took "3" s`}, "3"},
		"text of any kind": {faas.CallQuery{Text: "\x00\xff\\\"<>"}, ""},
		"before":           {faas.CallQuery{Before: 4}, "2 1 0"},
		"all of it":        {faas.CallQuery{Functions: []string{"f0"}, Version: 1, Outcome: "timeout", Caller: "01", Trace: "trace3", Text: "took", Since: at, Until: at.Add(time.Hour), MinRun: time.Millisecond, Before: 9}, "3"},
	} {
		if got := o.ids(test.query); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestForgedMembers: what a caller or a function says cannot pass for a member of a
// record.
func TestForgedMembers(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	o.Record(call(1, func(c *faas.CallRecord) {
		c.Outcome, c.Path = "function_raised", `/api/call/x/","outcome":"ok","function":"f2`
		c.Error = &faas.CallError{Message: `{"omitted":9,"function":"f2"} "outcome":"ok" "run":99999`}
	}))
	o.eventually(faas.CallQuery{Outcome: faas.OutcomeFailed}, "1")
	for name, query := range map[string]faas.CallQuery{
		"another function": {Functions: []string{"f2"}}, "it went well": {Outcome: "ok"}, "it ran for long": {MinRun: time.Second},
	} {
		if got := o.ids(query); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestTextsAreBounded: a record stays small, and keeps the end of a traceback.
func TestTextsAreBounded(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	long := strings.Repeat("ü", 100_000)
	given := &faas.CallError{Type: long, Message: long, Traceback: long + "the end"}
	o.Record(call(1, func(c *faas.CallRecord) { c.Outcome, c.Path, c.Caller, c.Error = "function_raised", long, long, given }))
	o.eventually(faas.CallQuery{}, "1")
	c, err := o.Call("call-1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(encode(c.Call)); n > 20_000 {
		t.Errorf("the record has %d bytes", n)
	}
	if e := c.Call.Error; !strings.HasSuffix(e.Traceback, "üthe end") || !strings.HasPrefix(e.Message, "üü") || !strings.HasSuffix(e.Message, "ü…") || strings.ContainsRune(e.Traceback, '\ufffd') {
		t.Errorf("the texts are cut to %.20q…, %.20q…", e.Message, e.Traceback)
	}
	if len(given.Traceback) < 100_000 {
		t.Error("the answer's traceback was cut, too")
	}
}

// TestSampling: beyond the rate, calls that went well are counted instead; those that
// failed or took long are all kept.
func TestSampling(t *testing.T) {
	o := open(t, t.TempDir(), func(c *Config) { c.Rate = 10 })
	const n = 3000
	for i := range n {
		o.Record(call(i%900, func(c *faas.CallRecord) { c.Function = fmt.Sprint("f", i%2) }))
		if i%100 == 0 {
			o.Record(call(i, func(c *faas.CallRecord) { c.Outcome = "timeout" }))
			o.Record(call(i, func(c *faas.CallRecord) { c.Timing.Total = slow }))
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, o.data, nil)
	kept, omitted, failed, long := 0, 0, 0, 0
	for c, err := range o.Calls(faas.CallQuery{}, nil) {
		switch {
		case err != nil:
			t.Fatal(err)
		case c.Omitted > 0:
			omitted += c.Omitted
		case c.Call.Outcome != "ok":
			failed++
		case c.Call.Timing.Total >= slow:
			long++
		default:
			kept++
		}
	}
	if kept+omitted != n || failed != n/100 || long != n/100 || kept < 10 || kept > 200 {
		t.Errorf("of %d calls %d were kept and %d omitted; of %d failures %d, of %[4]d slow ones %[6]d", n, kept, omitted, n/100, failed, long)
	}
	some := 0
	for c, err := range o.Calls(faas.CallQuery{Functions: []string{"f1"}}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		some += c.Omitted
	}
	if some == 0 || some >= omitted {
		t.Errorf("of %d omitted calls %d were of one of two functions", omitted, some)
	}
	if got := o.ids(faas.CallQuery{Text: "f1", Outcome: "ok", MinRun: time.Hour}); got != "" {
		t.Errorf("calls that were only counted match %q", got)
	}
}

// TestSampler: over a whole second an even share is kept, and none is lost from the
// count.
func TestSampler(t *testing.T) {
	s := sampler{rate: 100}
	now := time.Unix(1000, 0)
	for second, test := range []struct{ calls, least, most int }{
		{50, 50, 50}, {1000, 100, 100}, {1000, 95, 100}, {2000, 95, 100}, {2000, 95, 100}, {100, 1, 10}, {100, 100, 100}, {0, 0, 0}, {0, 0, 0}, {100, 100, 100},
	} {
		kept, firstHalf := 0, 0
		for i := range test.calls {
			if s.admits(now.Add(time.Duration(i) * time.Second / time.Duration(test.calls))) {
				kept++
				if i < test.calls/2 {
					firstHalf++
				}
			}
		}
		if kept < test.least || kept > test.most {
			t.Errorf("in second %d %d of %d were kept", second, kept, test.calls)
		}
		if second == 4 && firstHalf > 60 {
			t.Errorf("of %d that were kept %d were in the first half of the second", kept, firstHalf)
		}
		now = now.Add(time.Second)
	}
	s.omit("b", time.Unix(60, 0))
	s.omit("a", time.Unix(61, 0))
	s.omit("a", time.Unix(119, 0))
	s.omit("a", time.Unix(120, 0))
	want := []omittedCalls{{2, "a", time.Unix(60, 0).UTC()}, {1, "b", time.Unix(60, 0).UTC()}}
	if got := s.omitted(time.Unix(121, 0)); !slices.Equal(got, want) {
		t.Errorf("omitted are %v", got)
	}
	if got := s.omitted(time.Time{}); len(got) != 1 || got[0].Omitted != 1 {
		t.Errorf("then omitted are %v", got)
	}
}

func (o *opened) follow(query faas.CallQuery, done <-chan struct{}) iter.Seq[faas.StoredCall] {
	o.t.Helper()
	calls, err := o.Follow(query, done)
	if err != nil {
		o.t.Error(err)
		return func(func(faas.StoredCall) bool) {}
	}
	return calls
}

// TestFollow: a follower gets the calls that match as they come, and one that does not
// read holds up nobody.
func TestFollow(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	o.Record(call(0, nil))
	o.eventually(faas.CallQuery{}, "0")
	done := make(chan struct{})
	lazy := o.follow(faas.CallQuery{}, done)
	got := make(chan string)
	go func() {
		defer close(got)
		for c := range o.follow(faas.CallQuery{Outcome: faas.OutcomeFailed}, done) {
			got <- c.Call.ID
		}
	}()
	for range 100 { // until the follower is there
		o.following.Lock()
		n := len(o.followers)
		o.following.Unlock()
		if n == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	const n = maxBehind + 500
	for i := range n {
		o.Record(call(i, func(c *faas.CallRecord) {
			if i == 7 || i == n-1 {
				c.Outcome = "timeout"
			}
		}))
		if i%1000 == 0 {
			o.written()
		}
	}
	for _, want := range []string{"call-7", fmt.Sprint("call-", n-1)} {
		if id := <-got; id != want {
			t.Errorf("followed %s, want %s", id, want)
		}
	}
	close(done)
	for range got {
		t.Error("followed another one")
	}
	seen := 0
	for range lazy {
		seen++
		if seen > maxBehind {
			t.Error("more is kept for a follower than there is room for")
		}
	}
	o.following.Lock()
	defer o.following.Unlock()
	if len(o.followers) != 0 {
		t.Errorf("there are still %d followers", len(o.followers))
	}
}

// TestBounds: the oldest go when there is no room, and when they are too old.
func TestBounds(t *testing.T) {
	o := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 1 << 20 })
	for i := range 8000 {
		o.Record(call(i, func(c *faas.CallRecord) { c.Timing.Total = slow }))
		if i%500 == 0 {
			o.written()
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	files, _ := filepath.Glob(filepath.Join(o.data, Name, "*"))
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", file, info.Mode())
		}
	}
	n := strings.Count(o.ids(faas.CallQuery{}), " ") + 1
	if size > 1<<20 || n < 1000 || n > 7000 {
		t.Errorf("%d calls in %d bytes are kept", n, size)
	}
	if ids := o.ids(faas.CallQuery{}); !strings.HasPrefix(ids, "7999 7998 ") {
		t.Errorf("the newest are %.20s", ids)
	}
}

// TestNoSpace: what cannot be written is counted and reported, and nobody waits for it.
func TestNoSpace(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	o.Record(call(1, nil))
	o.eventually(faas.CallQuery{}, "1")
	if err := o.journal.Close(); err != nil { // from now on it takes nothing
		t.Fatal(err)
	}
	for i := range 100 {
		o.Record(call(i, nil))
	}
	for end := time.Now().Add(10 * time.Second); o.missing.Load() < 100 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if n := o.missing.Load(); n != 100 || len(o.errs) != 1 {
		t.Errorf("%d calls are counted as lost, and %d errors were reported", n, len(o.errs))
	}
	if got := o.ids(faas.CallQuery{}); got != "1" {
		t.Errorf("then there are %q", got)
	}
}

// TestFlood: when more waits than there is room for, failures are kept before others.
func TestFlood(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	if err := o.Close(); err != nil { // so that nobody takes what is waiting
		t.Fatal(err)
	}
	o.waiting = nil
	for i := range maxWaiting + 100 {
		o.Record(call(i%900, nil))
	}
	for range maxWaitingFailed {
		o.Record(call(1, func(c *faas.CallRecord) { c.Outcome = "timeout" }))
	}
	all := o.sampler.omitted(time.Time{})
	if len(o.waiting) != maxWaitingFailed || len(all) != 1 || all[0].Omitted != 100 || o.lost != maxWaiting {
		t.Errorf("%d wait, %d are lost, and omitted are %v", len(o.waiting), o.lost, all)
	}
}

// TestDamaged: a damaged segment costs the calls in it, and never an answer.
func TestDamaged(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	for i := range 5 {
		o.Record(call(i, nil))
	}
	o.eventually(faas.CallQuery{}, "4 3 2 1 0")
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(o.data, Name, "*"))
	content, err := os.ReadFile(files[0])
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	content[strings.Index(string(content), "call-2")] ^= 1
	if err := os.WriteFile(files[0], content[:len(content)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	o = open(t, o.data, nil)
	if got := o.ids(faas.CallQuery{}); got != "3 1 0" {
		t.Errorf("there are %q", got)
	}
	var all error
	for len(o.errs) > 0 {
		all = errors.Join(all, <-o.errs)
	}
	if all == nil || !strings.Contains(all.Error(), "damaged at byte") || !strings.Contains(all.Error(), "cut off") {
		t.Errorf("reported was %v", all)
	}
	o.Record(call(9, nil))
	o.eventually(faas.CallQuery{}, "9 3 1 0")
}

// TestTextsOfAnyBytes: texts that are no characters are cut like others.
func TestTextsOfAnyBytes(t *testing.T) {
	for _, text := range []string{"\x80", "\xff", "ü", "\xf0\x9f\x90\xa6", "\x00"} {
		c := call(1, func(c *faas.CallRecord) {
			c.Path, c.Error = strings.Repeat(text, 10<<10), &faas.CallError{Message: strings.Repeat(text, 10<<10), Traceback: strings.Repeat(text, 10<<10)}
		})
		c.Bound()
		for _, cut := range []string{c.Path, c.Error.Message, c.Error.Traceback} {
			if len(cut) < faas.MaxRecordText-4 || len(cut) > faas.MaxRecordTraceback+4 {
				t.Errorf("%q is cut to %d bytes", text, len(cut))
			}
		}
	}
}

// TestLongErrorsThatWait: records that wait to be written have a bounded size together,
// and do not keep alive what they leave out.
func TestLongErrorsThatWait(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	if err := o.Close(); err != nil { // so that nobody takes what is waiting
		t.Fatal(err)
	}
	o.waiting = nil
	long := strings.Repeat("x", 1<<20)
	for range 20_000 {
		o.Record(call(1, func(c *faas.CallRecord) {
			c.Outcome, c.Error = "function_raised", &faas.CallError{Message: long, Traceback: long}
		}))
	}
	held := 0
	for _, c := range o.waiting {
		held += len(c.Error.Message) + len(c.Error.Traceback)
	}
	if held > maxWaitingBytes || held < maxWaitingBytes/2 || o.lost != 20_000-len(o.waiting) {
		t.Errorf("%d records hold %d bytes, and %d are lost", len(o.waiting), held, o.lost)
	}
}

// TestCallsWithOneID: callers choose IDs, so a call must not hide another function's.
func TestCallsWithOneID(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	for _, id := range []string{"f1", "f2", "f3"} {
		o.Record(call(1, func(c *faas.CallRecord) { c.Function = id }))
	}
	o.eventually(faas.CallQuery{}, "1 1 1")
	for _, id := range []string{"f1", "f2", "f3"} {
		if c, err := o.Call("call-1", []string{"f0", id}, nil); err != nil || c.Call.Function != id {
			t.Errorf("of %s there is %+v, %v", id, c.Call, err)
		}
	}
	if c, err := o.Call("call-1", []string{"f4"}, nil); faas.CodeOf(err) != faas.CodeUnknownCall {
		t.Errorf("there is %+v, %v", c.Call, err)
	}
}

// TestSearchesAreBounded: few run at a time, and one whose client has left ends.
func TestSearchesAreBounded(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	for i := range 900 {
		o.Record(call(i, nil))
	}
	o.eventually(faas.CallQuery{Text: "call-899"}, "899")
	done := make(chan struct{})
	running, seen := 0, 0
	var search func()
	search = func() { // each begins in the midst of the one before, and the last waits
		if running++; running > maxSearches {
			time.AfterFunc(50*time.Millisecond, func() { close(done) })
		}
		for range o.Calls(faas.CallQuery{}, done) {
			seen++
			search()
		}
	}
	search()
	if running != maxSearches+1 || seen != maxSearches {
		t.Errorf("%d searches were begun, and read %d records", running, seen)
	}
	for c := range o.Calls(faas.CallQuery{}, done) {
		t.Fatalf("a client that has left gets %+v", c)
	}
}

// TestLargeHistory: a search holds what it finds in a file, so files do not grow with the
// history's bound.
func TestLargeHistory(t *testing.T) {
	o := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 1 << 40 })
	long := strings.Repeat("x", faas.MaxRecordTraceback)
	for i := range 2000 {
		o.Record(call(i, func(c *faas.CallRecord) {
			c.Outcome, c.Error = "function_raised", &faas.CallError{Message: "m", Traceback: long}
		}))
		if i%500 == 0 {
			o.written()
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(o.data, Name, "*"))
	if len(files) < 2 {
		t.Errorf("the history is in %d files", len(files))
	}
}

// TestManyFollowers: beyond a number they are refused, until others leave.
func TestManyFollowers(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	done := make(chan struct{})
	for range maxFollowers - 1 {
		o.follow(faas.CallQuery{}, done)
	}
	last := o.follow(faas.CallQuery{}, done)
	if _, err := o.Follow(faas.CallQuery{}, done); faas.CodeOf(err) != faas.CodeNoCapacity {
		t.Errorf("one too many: %v", err)
	}
	close(done)
	for range last {
	}
	o.follow(faas.CallQuery{}, done)
}

// TestJournalFails: what fails for each record is reported once a second, also when the
// journal cannot begin a file.
func TestJournalFails(t *testing.T) {
	o := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = segments << 10 })
	o.Record(call(1, nil))
	o.eventually(faas.CallQuery{}, "1")
	if err := os.RemoveAll(filepath.Join(o.data, Name)); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		o.Record(call(i, nil))
	}
	o.written()
	for end := time.Now().Add(10 * time.Second); len(o.errs) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(o.errs); n < 1 || n > 5 {
		t.Errorf("%d errors were reported", n)
	}
}

// TestForeignSegment: a segment that cannot be read at all costs its own calls, and no
// answer. When nothing can be read, the answer is an error.
func TestForeignSegment(t *testing.T) {
	o := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 1 << 20 })
	for i := range 300 {
		o.Record(call(i, nil))
	}
	o.written()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(o.data, Name, "*"))
	if len(files) < 3 {
		t.Fatalf("there are %d segments", len(files))
	}
	for _, file := range files[1:2] { // a folder cannot be read as a file
		if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	ids := " " + o.ids(faas.CallQuery{}) + " "
	if n := len(strings.Fields(ids)); n < 150 || n > 299 || !strings.HasPrefix(ids, " 299 ") || !strings.HasSuffix(ids, " 0 ") || len(o.errs) == 0 {
		t.Errorf("%d calls are found, and %d errors were reported", n, len(o.errs))
	}
	if _, err := o.Call("call-0", nil, nil); err != nil {
		t.Errorf("the oldest call: %v", err)
	}
	for _, file := range files {
		if err := errors.Join(os.RemoveAll(file), os.Mkdir(file, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	wantUnreadable(t, o.History)
}

// wantUnreadable fails the test unless the history answers that it cannot be read.
func wantUnreadable(t *testing.T, h *History) {
	t.Helper()
	n := 0
	for _, err := range h.Calls(faas.CallQuery{}, nil) {
		if n++; faas.CodeOf(err) != faas.CodeUnreadable {
			t.Errorf("answered with %v", err)
		}
	}
	if _, err := h.Call("call-1", nil, nil); n != 1 || faas.CodeOf(err) != faas.CodeUnreadable {
		t.Errorf("answered with %d errors, and of a call with %v", n, err)
	}
}

// TestBroken: what stands in place of a history that cannot be opened counts every call.
func TestBroken(t *testing.T) {
	lost := 0
	cfg := Config{Data: t.TempDir(), MaxBytes: 4 << 20, Lost: func(n int) { lost += n }, Failed: func(err error) { t.Error(err) }}
	if err := os.WriteFile(filepath.Join(cfg.Data, Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil {
		t.Fatal("a file was opened as a history")
	}
	h := Broken(cfg)
	for i := range 3 {
		h.Record(call(i, nil))
	}
	wantUnreadable(t, h)
	if _, err := h.Follow(faas.CallQuery{}, nil); faas.CodeOf(err) != faas.CodeUnreadable || lost != 3 {
		t.Errorf("followed with %v; %d are lost", err, lost)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
}

// TestRecordsOwnTheirTexts: a record that waits keeps no request's head alive.
func TestRecordsOwnTheirTexts(t *testing.T) {
	o := open(t, t.TempDir(), nil)
	if err := o.Close(); err != nil { // so that nobody takes what is waiting
		t.Fatal(err)
	}
	head := "GET /api/call/hello?" + strings.Repeat("x", 30_000)
	given := call(1, func(c *faas.CallRecord) { c.ID, c.Method, c.Path = head[:2], head[:3], head[4:19] })
	o.waiting = nil
	o.Record(given)
	kept := o.waiting[0]
	for _, pair := range [][2]string{{given.ID, kept.ID}, {given.Method, kept.Method}, {given.Path, kept.Path}} {
		if pair[0] != pair[1] || unsafe.StringData(pair[0]) == unsafe.StringData(pair[1]) {
			t.Errorf("%q is kept as %q, in the same memory", pair[0], pair[1])
		}
	}
}
