package audit

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// In testdata/lines is what a version without a journal wrote: five files. Two
// entries were lost when writing failed, and there are lines that broke off.
const (
	oldLast  = 52 // entry
	oldLines = oldLast - 2
)

// oldFolder is a data folder of that version. It returns what is in the files, too.
func oldFolder(t *testing.T) (folder string, files map[string]string) {
	t.Helper()
	folder = t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(filepath.Join("testdata", "lines"))); err != nil {
		t.Fatal(err)
	}
	return folder, oldOnes(t, folder)
}

// oldOnes returns what is in the files of that version.
func oldOnes(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for n := range oldFiles {
		if data, err := os.ReadFile(oldPath(folder, n)); err == nil {
			files[oldPath(folder, n)] = string(data)
		}
	}
	return files
}

// The log of an earlier version is read, to the letter, before the first start and
// after it, and goes on where it ended.
func TestOldLog(t *testing.T) {
	folder, files := oldFolder(t)
	lines := text(t, folder, faas.AuditQuery{Limit: 1000})
	for line := range strings.Lines(lines) {
		found := false
		for _, content := range files {
			found = found || strings.Contains("\n"+content, "\n"+line)
		}
		if !found {
			t.Errorf("there is no %s", line)
		}
	}
	all := entries(t, folder, faas.AuditQuery{})
	if len(files) != 5 || len(all) != oldLines || all[oldLines-1].Seq != oldLast {
		t.Fatalf("in %d files there are %d entries, the last %+v", len(files), len(all), all[len(all)-1])
	}
	if last := entries(t, folder, faas.AuditQuery{Limit: 3, Last: true}); len(last) != 3 || last[2].Seq != oldLast {
		t.Errorf("the last are %v", last)
	}
	middle := all[30].Time
	for round := range 3 {
		l := open(t, folder, MaxBytes)
		l.Record(change(fmt.Sprint("new ", round)))
		if got := text(t, folder, faas.AuditQuery{Limit: oldLines}); got != lines {
			t.Errorf("it has become\n%s, and was\n%s", got, lines)
		}
		newest := uint64(oldLast + round + 1)
		for _, c := range []struct {
			query       faas.AuditQuery
			first, last uint64
		}{
			{faas.AuditQuery{}, 1, newest},
			{faas.AuditQuery{Limit: 2, Last: true}, newest - 1, newest},
			{faas.AuditQuery{Limit: 10, Last: true}, newest - 9, newest},
			{faas.AuditQuery{After: oldLast - 2}, oldLast - 1, newest},
			{faas.AuditQuery{After: oldLast}, oldLast + 1, newest},
			{faas.AuditQuery{After: oldLast - 2, Limit: 3}, oldLast - 1, oldLast + 1},
			{faas.AuditQuery{After: oldLast - 2, Limit: 1}, oldLast - 1, oldLast - 1},
			{faas.AuditQuery{After: 5, Limit: 3}, 6, 8},
			{faas.AuditQuery{Since: middle}, 0, newest},
			{faas.AuditQuery{Since: time.Now().Add(time.Hour)}, 0, 0},
		} {
			got := entries(t, folder, c.query)
			if c.last == 0 {
				if len(got) > 0 {
					t.Errorf("%+v gives %v", c.query, got)
				}
				continue
			}
			if c.first == 0 {
				for c.first = 1; all[c.first-1].Time.Before(middle); c.first++ {
				}
				c.first = all[c.first-1].Seq
			}
			if len(got) == 0 || got[0].Seq != c.first || got[len(got)-1].Seq != c.last {
				t.Errorf("%+v gives %v, want those from %d to %d", c.query, got, c.first, c.last)
			}
		}
		l.Close()
	}
	if left := oldOnes(t, folder); !maps.Equal(left, files) {
		t.Error("its files have changed")
	}
}

// The oldest files go when the log gets too large, and before anything that is newer.
func TestOldFilesGo(t *testing.T) {
	folder, files := oldFolder(t)
	size := int64(0)
	for _, content := range files {
		size += int64(len(content))
	}
	const maxBytes = segments << 10
	for round := 0; len(oldOnes(t, folder)) > 0; round++ {
		l := open(t, folder, maxBytes)
		before := entries(t, folder, faas.AuditQuery{})
		for i, entry := range before[1:] {
			if entry.Seq != before[i].Seq+1 && entry.Seq > oldLast {
				t.Fatalf("%d comes behind %d", entry.Seq, before[i].Seq)
			}
		}
		for range 50 {
			l.Record(change("hello"))
		}
		total := l.journal.Size()
		l.dropOld()
		for _, content := range oldOnes(t, folder) {
			total += int64(len(content))
		}
		if total > maxBytes || round > 30 || round == 0 && len(oldOnes(t, folder)) != len(files) {
			t.Fatalf("in round %d it has %d bytes", round, total)
		}
		l.Close()
	}
	if all := entries(t, folder, faas.AuditQuery{}); all[0].Seq != oldLast+1 {
		t.Errorf("the first is %d", all[0].Seq)
	}
}
