package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/durable/powercut"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

func TestMain(m *testing.M) {
	if folder := os.Getenv("AUDIT_TEST_WRITE"); folder != "" {
		writeForEver(folder)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, folder string, maxBytes int64) *Log {
	t.Helper()
	l, err := Open(folder, maxBytes, func(err error) { t.Errorf("failed: %v", err) })
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
	for line := range strings.Lines(text(t, folder, query)) {
		var entry faas.AuditEntry
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Seq <= last {
			t.Errorf("%d comes behind %d", entry.Seq, last)
		}
		last = entry.Seq
		all = append(all, entry)
	}
	return all
}

// text reads the lines that there are.
func text(t *testing.T, folder string, query faas.AuditQuery) string {
	t.Helper()
	var out strings.Builder
	err := Read(folder, query, func(err error) { t.Error(err) }, func(line []byte) error {
		out.Write(line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// kept returns the files of the journal.
func kept(t *testing.T, folder string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(folder, Name, "*"))
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
	l := open(t, folder, MaxBytes)
	before := time.Now().Add(-time.Millisecond)
	l.Record(change("hello"))
	line := text(t, folder, faas.AuditQuery{Limit: 2})
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		t.Fatal(err)
	}
	// It is as it would be if it were encoded as a whole.
	var entry faas.AuditEntry
	err := json.Unmarshal([]byte(line), &entry)
	whole, encodeErr := json.Marshal(entry)
	if err != nil || encodeErr != nil || string(whole)+"\n" != line {
		t.Errorf("it is %s, want %s (%v, %v)", line, whole, err, encodeErr)
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
	for _, file := range kept(t, folder) {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v, %v", info.Mode(), err)
		}
	}
}

// What the log is opened on is closed to others, even if somebody opened it.
func TestModeIsMended(t *testing.T) {
	folder := t.TempDir()
	open(t, folder, MaxBytes).Close()
	file := kept(t, folder)[0]
	if err := errors.Join(os.Chmod(file, 0o644), os.Chmod(filepath.Join(folder, Name), 0o755)); err != nil {
		t.Fatal(err)
	}
	open(t, folder, MaxBytes)
	for path, want := range map[string]os.FileMode{file: 0o600, filepath.Join(folder, Name): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestHostileTexts(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, MaxBytes)
	for name, want := range map[string]string{
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
			{Who: name, From: name, Action: name, ID: name, Name: name, Request: name, CallID: name, Outcome: faas.AuditOK},
		} {
			l.Record(entry)
			var got faas.AuditEntry
			err := json.Unmarshal([]byte(text(t, folder, faas.AuditQuery{Limit: 1, Last: true})), &got)
			if err != nil || got.Who != want || got.From != want || got.Action != want || got.ID != want || got.Name != want || got.Request != want || got.CallID != want {
				t.Errorf("%q became %+v (%v), want %q", name, got, err, want)
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
	folder := powercut.Memory(t)
	l := open(t, folder, segments*(8<<10))
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
	files := kept(t, folder)
	if len(files) < 5 {
		t.Errorf("there are only the files %v", files)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Size() > 8<<10 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

// There are so many files and no more, and the oldest entries go.
func TestOldestFileGoes(t *testing.T) {
	folder := powercut.Memory(t)
	l := open(t, folder, segments<<10)
	for range 1000 {
		l.Record(change("hello"))
	}
	files := kept(t, folder)
	all := entries(t, folder, faas.AuditQuery{})
	if len(files) < segments || len(files) > segments*5/4 || all[0].Seq == 1 || all[len(all)-1].Seq != 1000 || int(1000-all[0].Seq)+1 != len(all) {
		t.Errorf("%d files with the entries %d to %d, %d in number", len(files), all[0].Seq, all[len(all)-1].Seq, len(all))
	}
	l.Close()
	l = open(t, folder, segments<<10)
	l.Record(change("hello"))
	if all := entries(t, folder, faas.AuditQuery{}); all[len(all)-1].Seq != 1001 {
		t.Errorf("opened again, it goes on with %d", all[len(all)-1].Seq)
	}
}

// What is not done is written ten times a second, and then counted.
func TestRefusalsAreBounded(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, folder, MaxBytes)
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
	l := open(t, folder, MaxBytes)
	for range 100 {
		l.Record(faas.AuditEntry{Action: faas.AuditRefused, Outcome: "forbidden"})
	}
	l.Close()
	all := entries(t, folder, faas.AuditQuery{})
	if n := len(all); n != 11 || all[10].Omitted != 90 {
		t.Errorf("there are %d entries, the last %+v", n, all[n-1])
	}
}

// An entry that a crash broke off is told of, and the next one is whole.
func TestTornEntry(t *testing.T) {
	folder := t.TempDir()
	l := open(t, folder, MaxBytes)
	l.Record(change("first"))
	l.Record(change("torn"))
	l.Close()
	file := kept(t, folder)[0]
	info, err := os.Stat(file)
	if err == nil {
		err = os.Truncate(file, info.Size()-9)
	}
	if err != nil {
		t.Fatal(err)
	}
	if all := entries(t, folder, faas.AuditQuery{}); len(all) != 1 {
		t.Errorf("with a torn entry there are %d, want 1", len(all))
	}
	told := 0
	l, err = Open(folder, MaxBytes, func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Record(change("second"))
	all := entries(t, folder, faas.AuditQuery{})
	if len(all) != 2 || all[1].Name != "second" || all[1].Seq != 2 || told != 1 {
		t.Errorf("told %d times, the entries are %+v", told, all)
	}
}

// A damaged entry harms no other, and is told of once.
func TestDamagedEntry(t *testing.T) {
	folder := t.TempDir()
	var told []error
	l, err := Open(folder, MaxBytes, func(err error) { told = append(told, err) })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second", "third"} {
		l.Record(change(name))
	}
	file := kept(t, folder)[0]
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("second"))]++
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var seen []string
		err := l.Read(faas.AuditQuery{Limit: 10}, func(line []byte) error {
			var entry faas.AuditEntry
			err := json.Unmarshal(line, &entry)
			seen = append(seen, entry.Name)
			return err
		})
		if err != nil || !slices.Equal(seen, []string{"first", "third"}) {
			t.Errorf("there are %v (%v)", seen, err)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0].Error(), "record 2 cannot be read") {
		t.Errorf("told of %v", told)
	}
	l.Close()
	l, err = Open(folder, MaxBytes, func(err error) { told = append(told, err) })
	if err != nil || len(told) != 2 {
		t.Fatalf("opened it tells of %v (%v)", told, err)
	}
	l.Record(change("fourth"))
	l.Close()
}

// What cannot be written is told, and holds nobody up.
func TestDiskFails(t *testing.T) {
	folder := t.TempDir()
	var failures atomic.Int64
	l, err := Open(folder, MaxBytes, func(error) { failures.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Record(change("first"))
	working := l.journal
	if l.journal, err = journal.Open(filepath.Join(t.TempDir(), "other"), journal.Options{}); err != nil {
		t.Fatal(err)
	}
	l.journal.Close() // as near as it gets to a full disk
	l.Record(change("lost"))
	if n := failures.Load(); n != 1 {
		t.Errorf("%d failures were told, want 1", n)
	}
	l.journal = working
	l.Record(change("third"))
	all := entries(t, folder, faas.AuditQuery{})
	if len(all) != 2 || all[1].Name != "third" {
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
	l := open(t, folder, segments*(20<<10))
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
	l, err := Open(folder, segments*(8<<10), func(error) {}) // what a kill broke off is told of
	if err != nil {
		panic(err)
	}
	for {
		l.Record(change("hello"))
		os.Stdout.Write([]byte{'.'})
	}
}

// Files that cannot be begun, again and again, lose no entry, and go on later.
func TestRotationFails(t *testing.T) {
	folder := t.TempDir()
	told := 0
	l, err := Open(folder, segments<<10, func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for len(kept(t, folder)) < 9 {
		l.Record(change("hello"))
	}
	before := len(entries(t, folder, faas.AuditQuery{}))
	at := filepath.Join(folder, Name)
	if err := os.Rename(at, at+".away"); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		l.Record(change("meanwhile"))
	}
	if err := os.Rename(at+".away", at); err != nil {
		t.Fatal(err)
	}
	if all := entries(t, folder, faas.AuditQuery{}); len(all) != before+200 || all[0].Seq != 1 || len(kept(t, folder)) != 9 {
		t.Errorf("there are %d entries, from %d on; want %d", len(all), all[0].Seq, before+200)
	}
	if told < 100 {
		t.Errorf("%d failures were told", told)
	}
	for len(kept(t, folder)) < 12 {
		l.Record(change("after"))
	}
	if all := entries(t, folder, faas.AuditQuery{}); all[0].Seq != 1 || int(all[len(all)-1].Seq) != len(all) {
		t.Errorf("they begin at %d", all[0].Seq)
	}
}

// A day of refusals is bounded, and what is only counted is told less often then.
func TestRefusalsOfADayAreBounded(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, folder, MaxBytes)
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
	size := int64(0)
	for _, file := range kept(t, folder) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if len(all) > 2*perDay+100 || len(all) < 2*perDay-100 || told-omissions > 48*3600*(perSecond+1) || size > 12<<20 {
		t.Errorf("there are %d entries in %d bytes, %d of them omissions", len(all), size, omissions)
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
	l, err := Open(folder, MaxBytes, func(error) { missing.Add(1) })
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
