package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestMain(m *testing.M) {
	if folder := os.Getenv("AUDIT_TEST_WRITE"); folder != "" {
		writeForEver(folder)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, folder string, maxSize int64) *Log {
	t.Helper()
	l, err := Open(folder, maxSize, func(err error) { t.Errorf("failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// entries reads what there is, and fails the test unless each Seq is higher than
// the one before.
func entries(t *testing.T, folder string, query faas.AuditQuery) []faas.AuditEntry {
	t.Helper()
	if query.Limit == 0 {
		query.Limit = 1 << 30
	}
	var all []faas.AuditEntry
	last := uint64(0)
	err := Read(folder, query, func(line []byte) error {
		var entry faas.AuditEntry
		err := json.Unmarshal(line, &entry)
		if entry.Seq <= last {
			t.Errorf("%d comes behind %d", entry.Seq, last)
		}
		last = entry.Seq
		all = append(all, entry)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func change(name string) faas.AuditEntry {
	return faas.AuditEntry{Who: "local", From: "127.0.0.1:1", Action: "function.put", ID: "id", Name: name, Version: 3, Outcome: faas.AuditOK}
}

func TestEntry(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, MaxSize)
	before := time.Now().Add(-time.Millisecond)
	l.Record(change("hello"))
	text, err := os.ReadFile(filepath.Join(folder, Name))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	stamp, err := time.Parse("2006-01-02T15:04:05.999Z", fields["time"].(string))
	if err != nil || stamp.Before(before) || stamp.After(time.Now()) {
		t.Errorf("the time is %v (%v)", fields["time"], err)
	}
	delete(fields, "time")
	want := map[string]any{"seq": 1.0, "who": "local", "from": "127.0.0.1:1", "action": "function.put", "id": "id", "name": "hello", "version": 3.0, "outcome": "ok"}
	if fmt.Sprint(fields) != fmt.Sprint(want) {
		t.Errorf("it is %v, want %v", fields, want)
	}
	if info, err := os.Stat(filepath.Join(folder, Name)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

// What the log is opened on is closed to others, even if somebody opened it.
func TestModeIsMended(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, Name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, folder, MaxSize)
	if info, err := os.Stat(filepath.Join(folder, Name)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

func TestHostileTexts(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, MaxSize)
	for text, want := range map[string]string{
		"plain":                   "plain",
		"smörgås 鳥":               "smörgås 鳥",
		"a\r\n{\"seq\":9}":        `a\u000d\u000a{"seq":9}`,
		"\x1b[31mred\x07":         `\u001b[31mred\u0007`,
		"\x00\x7f\u0085":          `\u0000\u007f\u0085`,
		"\u202etxt.exe\u2028":     `\u202etxt.exe\u2028`,
		"\u200bnothing\ufeff":     `\u200bnothing\ufeff`,
		"\xff\xfe":                `\xff\xfe`,
		"\ufffd":                  "\ufffd",
		`\u001b`:                  `\\u001b`, // which is not the same as the character
		"\U000e0041":              `\U000e0041`,
		strings.Repeat("x", 256):  strings.Repeat("x", 256),
		strings.Repeat("x", 9999): strings.Repeat("x", 256) + "…",
		strings.Repeat("é", 9999): strings.Repeat("é", 128) + "…",
	} {
		for _, entry := range []faas.AuditEntry{
			{Who: text, From: text, Action: text, ID: text, Name: text, Request: text, CallID: text, Outcome: faas.AuditOK},
		} {
			l.Record(entry)
			raw, err := os.ReadFile(filepath.Join(folder, Name))
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
			var got faas.AuditEntry
			err = json.Unmarshal([]byte(lines[len(lines)-1]), &got)
			if err != nil || got.Who != want || got.From != want || got.Action != want || got.ID != want || got.Name != want || got.Request != want || got.CallID != want {
				t.Errorf("%q became %+v (%v), want %q", text, got, err, want)
			}
		}
	}
	if all := entries(t, folder, faas.AuditQuery{}); len(all) != 14 {
		t.Errorf("there are %d entries, want 14", len(all))
	}
}

// Many write at once, files are rotated, and somebody reads meanwhile.
func TestRotationUnderLoad(t *testing.T) {
	const writers, each = 8, 200
	folder := t.TempDir()
	l := open(t, folder, 32<<10)
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				entries(t, folder, faas.AuditQuery{})
			}
		}
	})
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				name := fmt.Sprintf("%d/%d", w, n)
				l.Record(change(name))
				if n%20 > 0 {
					continue
				}
				found := false
				for _, entry := range entries(t, folder, faas.AuditQuery{}) {
					found = found || entry.Name == name
				}
				if !found {
					t.Errorf("%s is recorded, and cannot be read", name)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	all := entries(t, folder, faas.AuditQuery{})
	if len(all) != writers*each || all[len(all)-1].Seq != writers*each {
		t.Errorf("there are %d entries, want %d", len(all), writers*each)
	}
	kept, _ := filepath.Glob(filepath.Join(folder, Name+"*"))
	if len(kept) < 5 {
		t.Errorf("there are only the files %v", kept)
	}
	for _, file := range kept {
		if info, err := os.Stat(file); err != nil || info.Size() > 32<<10 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

// Ten files are kept, and the oldest entries go.
func TestOldestFileGoes(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, 1<<10)
	for range 300 {
		l.Record(change("hello"))
	}
	kept, _ := filepath.Glob(filepath.Join(folder, "*"))
	all := entries(t, folder, faas.AuditQuery{})
	if len(kept) != files || all[0].Seq == 1 || all[len(all)-1].Seq != 300 || int(300-all[0].Seq)+1 != len(all) {
		t.Errorf("%d files with the entries %d to %d, %d in number", len(kept), all[0].Seq, all[len(all)-1].Seq, len(all))
	}
	l.Close()
	l = open(t, folder, 1<<10)
	l.Record(change("hello"))
	if all := entries(t, folder, faas.AuditQuery{}); all[len(all)-1].Seq != 301 {
		t.Errorf("opened again, it goes on with %d", all[len(all)-1].Seq)
	}
}

// What is not done is written ten times a second, and then counted.
func TestRefusalsAreBounded(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, folder, MaxSize)
		refusal := faas.AuditEntry{Who: "anonymous", Action: faas.AuditRefused, Request: "GET /", Outcome: "unauthorized"}
		for range 1000 {
			l.Record(refusal)
		}
		l.Record(change("hello")) // is not one of them
		time.Sleep(1500 * time.Millisecond)
		for range 5 {
			l.Record(refusal)
		}
		l.Record(change("hello"))
		l.Close()
	})
	written, omitted, changes := 0, 0, 0
	for _, entry := range entries(t, folder, faas.AuditQuery{}) {
		switch entry.Action {
		case faas.AuditRefused:
			written++
		case faas.AuditOmitted:
			omitted += entry.Omitted
		default:
			changes++
		}
	}
	if written != 15 || omitted != 990 || changes != 2 {
		t.Errorf("%d are written, %d only counted, and %d are changes; want 15, 990 and 2", written, omitted, changes)
	}
}

// Close writes the count of what it was not time yet to write.
func TestCloseWritesAll(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, MaxSize)
	for range 100 {
		l.Record(faas.AuditEntry{Action: faas.AuditRefused, Outcome: "forbidden"})
	}
	l.Close()
	all := entries(t, folder, faas.AuditQuery{})
	if n := len(all); n != 11 || all[10].Omitted != 90 {
		t.Errorf("there are %d entries, the last %+v", n, all[n-1])
	}
}

// A line that a crash broke off is passed over, and the next one is whole.
func TestTornLine(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, MaxSize)
	l.Record(change("first"))
	l.Close()
	f, err := os.OpenFile(filepath.Join(folder, Name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"seq":2,"time":"2026-`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if all := entries(t, folder, faas.AuditQuery{}); len(all) != 1 {
		t.Errorf("with a torn line there are %d entries, want 1", len(all))
	}
	l = open(t, folder, MaxSize)
	l.Record(change("second"))
	all := entries(t, folder, faas.AuditQuery{})
	if len(all) != 2 || all[1].Name != "second" || all[1].Seq != 2 {
		t.Errorf("the entries are %+v", all)
	}
}

// What cannot be written is told, holds nobody up, and a line that was broken
// off harms no other.
func TestDiskFails(t *testing.T) {
	folder := t.TempDir()
	var failures atomic.Int64
	l, err := Open(folder, MaxSize, func(error) { failures.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Record(change("first"))
	working := l.file
	if l.file, err = os.Open(os.DevNull); err != nil { // not open for writing
		t.Fatal(err)
	}
	l.Record(change("lost"))
	l.file.Close()
	if n := failures.Load(); n != 1 {
		t.Errorf("%d failures were told, want 1", n)
	}
	l.file, l.torn = working, true
	l.Record(change("third"))
	all := entries(t, folder, faas.AuditQuery{})
	if len(all) != 2 || all[1].Name != "third" || all[1].Seq != 3 {
		t.Errorf("the entries are %+v", all)
	}
	l.Close()
	l.Record(change("late"))
	if n := failures.Load(); n != 2 {
		t.Errorf("after Close %d failures were told, want 2", n)
	}
}

func TestQueries(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, 20<<10)
	const n = 1000
	var middle time.Time
	for i := range n {
		if i == n/2 {
			time.Sleep(2 * time.Millisecond)
			middle = time.Now().Truncate(time.Millisecond)
		}
		l.Record(change("hello"))
	}
	for _, c := range []struct {
		query       faas.AuditQuery
		first, last uint64
	}{
		{faas.AuditQuery{}, 1, n},
		{faas.AuditQuery{Limit: 7}, 1, 7},
		{faas.AuditQuery{Limit: 7, Last: true}, n - 6, n},
		{faas.AuditQuery{Limit: 7, After: 100}, 101, 107},
		{faas.AuditQuery{Limit: 7, After: n - 3}, n - 2, n},
		{faas.AuditQuery{Limit: 7, After: n - 3, Last: true}, n - 2, n},
		{faas.AuditQuery{Since: middle}, n/2 + 1, n},
		{faas.AuditQuery{Since: middle, Limit: 3}, n/2 + 1, n/2 + 3},
	} {
		all := entries(t, folder, c.query)
		if all[0].Seq != c.first || all[len(all)-1].Seq != c.last || len(all) != int(c.last-c.first)+1 {
			t.Errorf("%+v gives the entries %d to %d, %d in number", c.query, all[0].Seq, all[len(all)-1].Seq, len(all))
		}
	}
	if all := entries(t, folder, faas.AuditQuery{After: n}); len(all) > 0 {
		t.Errorf("behind the last there are %d", len(all))
	}
	enough := errors.New("the reader has gone")
	if err := l.Read(faas.AuditQuery{Limit: 5}, func([]byte) error { return enough }); err != enough {
		t.Errorf("Read: %v", err)
	}
}

// Each entry that was acknowledged before a kill -9 is there.
func TestKilled(t *testing.T) {
	folder := t.TempDir()
	told := 0
	for round := range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "AUDIT_TEST_WRITE="+folder)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := make([]byte, 20+10*round)
		for n := 0; n < len(acknowledged); {
			m, err := out.Read(acknowledged[n:])
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
		child.Process.Kill()
		child.Wait()
		told += len(acknowledged)
		if all := entries(t, folder, faas.AuditQuery{}); len(all) < told {
			t.Fatalf("%d entries were acknowledged, and there are %d", told, len(all))
		}
	}
}

// writeForEver records, and writes a byte to standard output for each entry
// that is on disk.
func writeForEver(folder string) {
	l, err := Open(folder, 32<<10, func(err error) { panic(err) })
	if err != nil {
		panic(err)
	}
	for {
		l.Record(change("hello"))
		os.Stdout.Write([]byte{'.'})
	}
}

// A rotation that fails, again and again, loses no file, and one that broke off
// is gone on with.
func TestRotationFails(t *testing.T) {
	folder := t.TempDir()
	l, err := Open(folder, 1<<10, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	files := func() int {
		all, err := filepath.Glob(filepath.Join(folder, Name+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for files() < 9 {
		l.Record(change("hello"))
	}
	// A folder is where the next file is to be, with something in it.
	obstacle := path(folder, 0) + ".new"
	if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := len(entries(t, folder, faas.AuditQuery{}))
	for range 200 {
		l.Record(change("meanwhile"))
	}
	if all := entries(t, folder, faas.AuditQuery{}); len(all) != before+200 || all[0].Seq != 1 {
		t.Errorf("there are %d entries, from %d on; want %d", len(all), all[0].Seq, before+200)
	}
	// A gap is filled.
	if err := errors.Join(os.RemoveAll(obstacle), os.Rename(path(folder, 8), path(folder, 9)), os.Remove(path(folder, 5))); err != nil {
		t.Fatal(err)
	}
	for files() < 10 {
		l.Record(change("after"))
	}
	if all := entries(t, folder, faas.AuditQuery{}); all[0].Seq != 1 {
		t.Errorf("they begin at %d", all[0].Seq)
	}
}

// A day of refusals is bounded, and what is only counted is told less often then.
func TestRefusalsOfADayAreBounded(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, folder, MaxSize)
		for range 48 * 3600 {
			for range perSecond + 1 {
				l.Record(faas.AuditEntry{Who: "anonymous", Action: faas.AuditRefused, Request: strings.Repeat("&", 250), Outcome: "unauthorized"})
			}
			time.Sleep(time.Second)
		}
		l.Close()
	})
	all := entries(t, folder, faas.AuditQuery{})
	told := 0
	for _, entry := range all {
		told += max(1, entry.Omitted)
	}
	omissions := 0
	for _, entry := range all {
		if entry.Omitted > 0 {
			omissions++
		}
	}
	info, err := os.Stat(path(folder, 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) > 2*perDay+100 || len(all) < 2*perDay-100 || told-omissions > 48*3600*(perSecond+1) || info.Size() > 12<<20 {
		t.Errorf("there are %d entries in %d bytes, %d of them omissions", len(all), info.Size(), omissions)
	}
	if told != 48*3600*(perSecond+1) {
		t.Errorf("they tell of %d refusals, want %d", told, 48*3600*(perSecond+1))
	}
}

// Refusals come while it is closed, too: those that are not written are told of or
// counted, and none is counted twice.
func TestRefusalsDuringClose(t *testing.T) {
	folder := t.TempDir()
	var missing atomic.Int64
	l, err := Open(folder, MaxSize, func(error) { missing.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	var refusing sync.WaitGroup
	for range 4 {
		refusing.Go(func() {
			for range 500 {
				l.Record(faas.AuditEntry{Who: "anonymous", Action: faas.AuditRefused, Outcome: "unauthorized"})
			}
		})
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	refusing.Wait()
	told := int(missing.Load())
	for _, entry := range entries(t, folder, faas.AuditQuery{}) {
		told += max(1, entry.Omitted)
	}
	if told > 4*500 {
		t.Errorf("%d refusals are told of, and there were %d", told, 4*500)
	}
}
