package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/durable/powercut"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// replaceEnv makes the test binary a process that migrates or restores a
// database or writes a backup, and says when it is done. It has what to do, the
// path of the database and that of the backup, with a bar between.
const replaceEnv = "FOBTEST_STORE_REPLACE"

func replaceDatabase(what string) error {
	words := strings.Split(what, "|")
	var err error
	switch doing, path, backup := words[0], words[1], words[2]; doing {
	case "migrate":
		var kv *store.Bolt
		if kv, err = store.OpenBolt(context.Background(), path, false); err == nil {
			err = kv.Close()
		}
	case "restore":
		_, err = restoreFile(backup, path)
	case "back up":
		var from *os.File
		if from, err = os.Open(backup); err == nil {
			_, err = store.SaveBackup(path, from)
		}
	}
	if err == nil {
		fmt.Println("done")
	}
	return err
}

// TestPowerCutReplacing cuts the power at every moment of a migration, a restore
// and a backup: there is the old or the new, all of it, and the new once it is
// said to be there; and where the new is, the old is kept, if it is to be. What is not
// synced is lost in another way at each moment, or in as many as FOBTEST_POWERCUT_LOSSES
// says, four at most: what stays unsynced does so for many moments.
func TestPowerCutReplacing(t *testing.T) {
	random := source(t)
	losses, kinds := powercut.Losses(), setting(t, "FOBTEST_POWERCUT_LOSSES", 1)
	first := unpacked(t, "schema-1.db")
	migrated := filepath.Join(memory(t), "fob.db")
	check(t, os.WriteFile(migrated, first, 0o600))
	isFirst, err := content(t, migrated) // as it is once it is migrated
	check(t, err)
	second := unpacked(t, "schema-2.db")
	check(t, os.WriteFile(migrated, second, 0o600))
	isSecond, err := content(t, migrated)
	check(t, err)
	third := unpacked(t, "schema-3.db")
	check(t, os.WriteFile(migrated, third, 0o600))
	isThird, err := content(t, migrated)
	check(t, err)
	other := filepath.Join(memory(t), "fob.db")
	s := newStore(t, openBolt(t, other))
	fn, code := storetest.NewFunction("other")
	check(t, errors.Join(s.CreateFunction(t.Context(), fn, code, ""), s.Close()))
	isOther, err := content(t, other)
	check(t, err)
	otherData, err := os.ReadFile(other)
	check(t, err)
	firstFile := filepath.Join(t.TempDir(), "first")
	check(t, os.WriteFile(firstFile, first, 0o600))

	for name, test := range map[string]struct {
		doing    string
		before   []byte // nil is none
		isBefore string
		backup   string
		isAfter  string
		kept     string // pattern of where the old one is
	}{
		"a migration":                {"migrate", first, isFirst, "", isFirst, "fob.db.schema-1"},
		"a migration of the second":  {"migrate", second, isSecond, "", isSecond, "fob.db.schema-2"},
		"a migration of the last":    {"migrate", third, isThird, "", isThird, "fob.db.schema-3"},
		"a restore":                  {"restore", first, isFirst, other, isOther, "fob.db.before-restore-*"},
		"a restore of an old backup": {"restore", otherData, isOther, firstFile, isFirst, "fob.db.before-restore-*"},
		"a restore of a damaged one": {"restore", []byte("rubbish"), "", other, isOther, "fob.db.before-restore-*"},
		"a restore to nothing":       {"restore", nil, "", other, isOther, ""},
		"a backup":                   {"back up", otherData, isOther, firstFile, isFirst, ""},
		"a first backup":             {"back up", nil, "", other, isOther, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			path := filepath.Join(root, "data", "fob.db")
			check(t, os.MkdirAll(filepath.Dir(path), 0o700))
			if test.before != nil {
				check(t, os.WriteFile(path, test.before, 0o600))
			}
			p := powercut.Cuts{Root: root}
			p.Begin = func() *powercut.Disk {
				files := map[string][]byte{"data/": nil}
				if test.before != nil {
					files["data/fob.db"] = test.before
				}
				return powercut.NewDisk(files)
			}
			p.Traces = [][]powercut.Moment{powercut.Trace(t, replaceEnv+"="+strings.Join([]string{test.doing, path, test.backup}, "|"))}
			folder := memory(t)
			cuts, old, done := 0, 0, false
			said := func(line string) { done = done || line == "done" }
			check(t, p.Run(said, func(_, moment int, d *powercut.Disk) error {
				for n := range kinds {
					l := losses[(moment+int(n))%len(losses)]
					left := filepath.Join(folder, strconv.Itoa(cuts))
					if err := d.Cut(l, random, left); err != nil {
						return err
					}
					data := filepath.Join(left, "data")
					isOld, err := examine(t, filepath.Join(data, "fob.db"), test.isBefore, test.isAfter, test.before)
					if err == nil && isOld && done {
						err = errors.New("it was said to be done, and the old one is there")
					}
					if kept, _ := filepath.Glob(filepath.Join(data, test.kept)); err == nil && !isOld && test.kept != "" {
						err = wasKept(t, kept, test.isBefore, test.before)
					}
					if err != nil {
						return fmt.Errorf("a power cut that loses %s, at moment %d: %w", l, moment, err)
					}
					if err := os.RemoveAll(left); err != nil {
						return err
					}
					cuts++
					if isOld {
						old++
					}
				}
				return nil
			}))
			if old < 4 || old == cuts {
				t.Errorf("%d power cuts left the old one %d times: that tests little", cuts, old)
			}
			t.Logf("%d power cuts during %s, %d of which left the old one", cuts, name, old)
		})
	}
}

// examine says whether what a power cut has left is the old one or the new one.
func examine(t *testing.T, path, isBefore, isAfter string, before []byte) (old bool, err error) {
	now, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && before == nil {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if string(now) == string(before) {
		return true, nil
	}
	got, err := content(t, path)
	switch {
	case err != nil:
		return false, err
	case got == isAfter:
		return false, nil
	case got == isBefore:
		return true, nil
	}
	return false, fmt.Errorf("it has neither the old nor the new: %s", got)
}

// wasKept checks that one of the files is the old one. What a migration keeps is
// bbolt's copy, with other metas, and whatever is in free pages.
func wasKept(t *testing.T, files []string, isBefore string, before []byte) error {
	for _, file := range files {
		kept, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if string(kept) == string(before) {
			return nil
		}
		if got, err := content(t, file); err == nil && got == isBefore {
			return nil
		}
	}
	return fmt.Errorf("the old one is in none of %v", files)
}
