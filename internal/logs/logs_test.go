package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
)

// kept is a test's logs.
type kept struct {
	*Logs
	t    testing.TB
	lost atomic.Int64
	said atomic.Int64
}

func open(t testing.TB, cfg Config) *kept {
	t.Helper()
	k := &kept{t: t}
	if cfg.Data == "" {
		cfg.Data = t.TempDir()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 64 << 20
	}
	cfg.Lost = func(n int) { k.lost.Add(int64(n)) }
	cfg.Failed = func(error) { k.said.Add(1) }
	k.Logs, _ = Open(cfg)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

var ada, bob = uuid.NewString(), uuid.NewString()

func (k *kept) print(function, call, text string) {
	k.Write(faas.LogLine{Function: function, Version: 1, Sandbox: "0123456789abcdef", Call: call, Level: "stdout", Time: time.Now(), Text: []byte(text)})
}

// find returns the texts of at most 100 lines, the newest first.
func (k *kept) find(q faas.LogQuery) (all []string) {
	k.t.Helper()
	for l, err := range k.Lines(q, nil) {
		if err != nil {
			k.t.Fatal(err)
		}
		if all = append(all, string(l.Text)); len(all) == 100 {
			break
		}
	}
	return all
}

func (k *kept) wants(q faas.LogQuery, want ...string) {
	k.t.Helper()
	if got := k.find(q); fmt.Sprint(got) != fmt.Sprint(want) {
		k.t.Errorf("%+v finds %.300q, not %.300q", q, got, want)
	}
}

// TestLines: lines are found by everything that a query has, also after the next start.
func TestLines(t *testing.T) {
	data := t.TempDir()
	k := open(t, Config{Data: data})
	before := time.Now().Truncate(time.Microsecond) // as lines have it
	k.print(ada, "a1", "one")
	k.print(bob, "b1", "two")
	k.Write(faas.LogLine{Function: ada, Version: 2, Call: "a2", Level: "error", Time: time.Now(), More: true, Text: []byte("thr\xffee\x00")})
	k.print(ada, "", `{"user": {"id": 7}, "what": "sold \"it\"", "tags": ["x", "y"], "ok": true}`)
	json := `{"user": {"id": 7}, "what": "sold \"it\"", "tags": ["x", "y"], "ok": true}`
	check := func(k *kept) {
		t.Helper()
		k.wants(faas.LogQuery{}, json, "thr\xffee\x00", "two", "one")
		k.wants(faas.LogQuery{Functions: []string{bob}}, "two")
		k.wants(faas.LogQuery{Functions: []string{}})
		k.wants(faas.LogQuery{Functions: []string{uuid.NewString()}})
		k.wants(faas.LogQuery{Call: "a1"}, "one")
		k.wants(faas.LogQuery{Version: 2}, "thr\xffee\x00")
		k.wants(faas.LogQuery{Levels: []string{"warn", "error"}}, "thr\xffee\x00")
		k.wants(faas.LogQuery{Text: "r\xff"}, "thr\xffee\x00")
		k.wants(faas.LogQuery{Text: "user.id:7"}, json)
		k.wants(faas.LogQuery{Text: `what:"sold "`})
		k.wants(faas.LogQuery{Text: "tags:y ok:true"}, json)
		k.wants(faas.LogQuery{Text: "tags:z"})
		k.wants(faas.LogQuery{Text: "user:7"})
		k.wants(faas.LogQuery{Text: `"`}, json)
		k.wants(faas.LogQuery{Text: "w o"}, json, "two")
		k.wants(faas.LogQuery{Since: before}, json, "thr\xffee\x00", "two", "one")
		k.wants(faas.LogQuery{Since: time.Now().Add(time.Hour)})
		k.wants(faas.LogQuery{Until: before.Add(-time.Minute)})
	}
	check(k)
	var numbers []uint64
	for l := range k.Lines(faas.LogQuery{}, nil) {
		numbers = append(numbers, l.Number)
	}
	k.wants(faas.LogQuery{Before: numbers[1]}, "two", "one")
	k.wants(faas.LogQuery{After: numbers[2]}, json, "thr\xffee\x00")
	for l := range k.Lines(faas.LogQuery{Version: 2}, nil) {
		if l.Function != ada || l.Call != "a2" || !l.More || l.Level != "error" || time.Since(l.Time) > time.Minute {
			t.Errorf("the line is %+v", l)
		}
	}
	k.Close()
	again := open(t, Config{Data: data})
	check(again)
	again.print(ada, "", "later")
	again.wants(faas.LogQuery{After: numbers[0]}, "later")
}

// TestFairShare: a function that prints much pushes out its own lines alone, and the
// bound holds.
func TestFairShare(t *testing.T) {
	k := open(t, Config{MaxBytes: MinBytes})
	k.print(bob, "", "precious")
	line := strings.Repeat("x", 10<<10)
	for range 2 * MinBytes / len(line) {
		k.print(ada, "", line)
	}
	k.wants(faas.LogQuery{Functions: []string{bob}}, "precious")
	if n := len(k.find(faas.LogQuery{Functions: []string{ada}})); n != 100 {
		t.Errorf("%d of the newest lines are left", n)
	}
	if size := sizeOf(t, k.folder); size > MinBytes {
		t.Errorf("they take %d bytes", size)
	}
	if k.lost.Load()+k.said.Load() > 0 {
		t.Errorf("%d lines are lost", k.lost.Load())
	}
}

func sizeOf(t *testing.T, folder string) (size int64) {
	t.Helper()
	filepath.WalkDir(folder, func(path string, e os.DirEntry, err error) error {
		if info, err := e.Info(); err == nil && !e.IsDir() {
			size += info.Size()
		}
		return nil
	})
	return size
}

// TestManyFunctions: with more functions than journals may be open, and than there is
// room for, the newest lines stay.
func TestManyFunctions(t *testing.T) {
	k := open(t, Config{MaxBytes: MinBytes})
	var functions []string
	for range MinBytes/folderBytes + 100 {
		functions = append(functions, uuid.NewString())
		k.print(functions[len(functions)-1], "", "line")
	}
	if n := len(k.opened); n > maxOpen {
		t.Errorf("%d journals are open", n)
	}
	if entries, _ := os.ReadDir(k.folder); len(entries) > MinBytes/folderBytes {
		t.Errorf("%d functions have folders", len(entries))
	}
	k.wants(faas.LogQuery{Functions: functions[len(functions)-1:]}, "line")
	k.wants(faas.LogQuery{Functions: functions[:1]})
	if n := len(k.find(faas.LogQuery{})); n != 100 {
		t.Errorf("of all functions %d lines are found", n)
	}
	if k.lost.Load() > 0 {
		t.Errorf("%d lines are lost", k.lost.Load())
	}
}

// TestAge: what is too old goes, and a journal that is idle is closed.
func TestAge(t *testing.T) {
	k := open(t, Config{MaxAge: 8 * time.Hour})
	k.print(ada, "", "old")
	k.inspect(time.Now().Add(2 * time.Hour))
	if len(k.opened) > 0 {
		t.Error("an idle journal is open")
	}
	k.wants(faas.LogQuery{}, "old")
	k.inspect(time.Now().Add(9 * time.Hour))
	k.wants(faas.LogQuery{})
	if entries, _ := os.ReadDir(k.folder); len(entries) > 0 || k.bytes != 0 {
		t.Errorf("there are %v, of %d bytes", entries, k.bytes)
	}
	k.print(ada, "", "new")
	k.wants(faas.LogQuery{}, "new")
}

// TestUnwritable: lines that cannot be kept are counted, the next one says how many, and
// others' are kept.
func TestUnwritable(t *testing.T) {
	k := open(t, Config{})
	blocked := filepath.Join(k.folder, ada)
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		k.print(ada, "", "lost")
	}
	k.print(bob, "", "kept")
	if k.lost.Load() != 3 || k.said.Load() != 1 {
		t.Errorf("%d lines are lost, and %d errors were told", k.lost.Load(), k.said.Load())
	}
	os.Remove(blocked)
	k.shelf(ada).asleep = time.Time{}
	k.print(ada, "", "after")
	k.wants(faas.LogQuery{Functions: []string{ada}}, "after", "3 lines are missing here: the dispatcher could not write them")
	k.wants(faas.LogQuery{Functions: []string{bob}}, "kept")

	broken := &kept{t: t}
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if broken.Logs, err = Open(Config{Data: data, Lost: func(n int) { broken.lost.Add(int64(n)) }}); err == nil || !strings.Contains(err.Error(), data) {
		t.Errorf("a file in the folder's place is %v", err)
	}
	defer broken.Close()
	broken.print(ada, "", "x")
	for _, err := range broken.Lines(faas.LogQuery{}, nil) {
		if faas.CodeOf(err) != faas.CodeUnreadable {
			t.Errorf("reading it is %v", err)
		}
	}
	if _, err := broken.Follow(faas.LogQuery{}, nil); faas.CodeOf(err) != faas.CodeUnreadable || broken.lost.Load() != 1 {
		t.Errorf("following it is %v, and %d lines are lost", err, broken.lost.Load())
	}
}

// TestDamagedLines: a torn tail and a damaged segment cost their own lines.
func TestDamagedLines(t *testing.T) {
	data := t.TempDir()
	k := open(t, Config{Data: data})
	for i := range 3 {
		k.print(ada, "", fmt.Sprintf("line %d", i))
	}
	k.Close()
	files, _ := filepath.Glob(filepath.Join(data, Name, ada, "*"))
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[strings.Index(string(raw), "line 1")] ^= 1
	if err := os.WriteFile(files[0], append(raw, raw[60:90]...), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{Data: data})
	again.print(ada, "", "line 3")
	again.wants(faas.LogQuery{}, "line 3", "line 2", "line 0")
	if again.said.Load() == 0 || again.lost.Load() > 0 {
		t.Errorf("%d errors were told, and %d lines are lost", again.said.Load(), again.lost.Load())
	}
}

// TestFollow: a follower gets what matches as it comes; one that is too slow learns how
// many lines it missed, and nobody waits for it.
func TestFollow(t *testing.T) {
	k := open(t, Config{})
	done := make(chan struct{})
	lines, err := k.Follow(faas.LogQuery{Functions: []string{ada}, Text: "x"}, done)
	if err != nil {
		t.Fatal(err)
	}
	k.print(ada, "", "no")
	k.print(bob, "", "x of another")
	for i := range maxBehind + 10 {
		k.print(ada, "", fmt.Sprintf("x%d", i))
	}
	n := 0
	for l := range lines {
		if n < maxBehind {
			if string(l.Text) != fmt.Sprintf("x%d", n) || l.Function != ada {
				t.Fatalf("line %d is %+v", n, l)
			}
			if n++; n == maxBehind {
				k.print(ada, "", "x last")
			}
			continue
		}
		if l.Dropped == 10 && l.Function == "" {
			n++
			continue
		}
		if string(l.Text) != "x last" || n != maxBehind+1 {
			t.Errorf("after the gap comes %+v", l)
		}
		close(done)
		break
	}
	for range maxFollowers {
		if _, err := k.Follow(faas.LogQuery{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Follow(faas.LogQuery{}, nil); faas.CodeOf(err) != faas.CodeNoCapacity {
		t.Errorf("one follower too many: %v", err)
	}
}

// TestConcurrentLines: many write, read and follow at a time, while journals are closed
// and lines removed; each function's lines stay in order.
func TestConcurrentLines(t *testing.T) {
	k := open(t, Config{MaxBytes: MinBytes, MaxAge: time.Hour})
	functions := make([]string, 8)
	var writers, others sync.WaitGroup
	over := make(chan struct{})
	for i := range functions {
		functions[i] = uuid.NewString()
		for range 2 {
			writers.Go(func() {
				for range 300 {
					k.print(functions[i], "", strings.Repeat("x", 2000))
				}
			})
		}
	}
	for _, work := range []func(){
		func() { k.find(faas.LogQuery{}) }, func() { k.closeOne() }, func() { k.inspect(time.Now()) },
	} {
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					work()
				}
			}
		})
	}
	writers.Wait()
	close(over)
	others.Wait()
	last := map[string]uint64{}
	for l, err := range k.Lines(faas.LogQuery{}, nil) {
		if before := last[l.Function]; err != nil || before > 0 && l.Number >= before {
			t.Fatalf("line %d after %d, %v", l.Number, before, err)
		}
		last[l.Function] = l.Number
	}
	if len(last) != len(functions) || k.lost.Load() > 0 {
		t.Errorf("%d functions have lines, and %d are lost", len(last), k.lost.Load())
	}
}

// FuzzLine: a record is read as the line that was written, and anything else as none.
func FuzzLine(f *testing.F) {
	f.Add("call", "text", []byte{1, 0, 0, 1, 2, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, call, text string, raw []byte) {
		parseLine(raw)
		call = call[:min(len(call), maxField)]
		want := faas.LogLine{Function: ada, Number: 7, Version: 3, Sandbox: "s", Call: call, Time: time.UnixMicro(-5).UTC(), Level: "warn", More: true, Text: []byte(text), Dropped: 9}
		got, err := parseLine(appendLine(nil, &want))
		if err != nil || fmt.Sprintf("%+v", got.line(ada)) != fmt.Sprintf("%+v", want) {
			t.Fatalf("got %+v, %v", got, err)
		}
		newFilter(faas.LogQuery{Text: text}).contains(raw)
	})
}

func BenchmarkWrite(b *testing.B) {
	k := open(b, Config{})
	for b.Loop() {
		k.print(ada, "74673aaf-d67a-4802-81b8-b667be8f7b4e", "a line of some forty bytes, as they mostly are")
	}
}

func BenchmarkSearch(b *testing.B) {
	k := open(b, Config{MaxBytes: 512 << 20})
	for range 1_000_000 {
		k.print(ada, "74673aaf-d67a-4802-81b8-b667be8f7b4e", "a line of some forty bytes, as they mostly are")
	}
	for b.Loop() {
		k.find(faas.LogQuery{Text: "absent"})
	}
}

// TestFollowAfterTrim: a follower that begins where lines are gone is told that some are
// missing, and one that begins behind them is not.
func TestFollowAfterTrim(t *testing.T) {
	k := open(t, Config{MaxBytes: MinBytes})
	k.print(ada, "", "first")
	first := k.number.Load()
	line := strings.Repeat("x", 10<<10)
	for range 2 * MinBytes / len(line) {
		k.print(ada, "", line)
	}
	kept, last := 0, k.number.Load()
	k.print(bob, "", "new")
	for range k.Lines(faas.LogQuery{}, nil) {
		kept++
	}
	most := maxBehindBytes/len(line) + 1
	for after, want := range map[uint64][2]int{first: {most, kept - most + 1}, last - 3: {4, 0}, last: {1, 0}} {
		done := make(chan struct{})
		lines, err := k.Follow(faas.LogQuery{After: after}, done)
		if err != nil {
			t.Fatal(err)
		}
		shown, missed, before := 0, 0, after
		for l := range lines {
			if l.Number == 0 {
				missed += l.Dropped
				continue
			}
			if l.Number <= before {
				t.Fatalf("the line %d comes after %d", l.Number, before)
			}
			before = l.Number
			if shown++; string(l.Text) == "new" {
				break
			}
		}
		close(done)
		if shown != want[0] || missed != want[1] {
			t.Errorf("after %d are shown %d and missed %d, not %v", after-first, shown, missed, want)
		}
	}
}
