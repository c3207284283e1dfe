package survey_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/store/survey"
)

// makeFile makes a database with a large and a small bucket, values of several pages,
// and free pages, and returns what the large one holds.
func makeFile(t *testing.T, path string) map[string]string {
	t.Helper()
	check(t, os.RemoveAll(path))
	db, err := bbolt.Open(path, 0o600, nil)
	check(t, err)
	held := map[string]string{}
	for round := range 6 {
		check(t, db.Update(func(tx *bbolt.Tx) error {
			large, err := tx.CreateBucketIfNotExists([]byte("large"))
			check(t, err)
			small, err := tx.CreateBucketIfNotExists([]byte("small"))
			check(t, err)
			check(t, small.Put([]byte("only"), []byte("one")))
			for i := range 200 {
				key := fmt.Sprintf("key-%04d", i)
				if (i+round)%5 == 0 {
					delete(held, key)
					check(t, large.Delete([]byte(key)))
					continue
				}
				held[key] = string(bytes.Repeat([]byte{byte(i)}, 1+i*i%9_000))
				check(t, large.Put([]byte(key), []byte(held[key])))
			}
			return large.SetSequence(uint64(round + 7))
		}))
	}
	check(t, db.Close())
	return held
}

// read surveys all of a file.
func read(t *testing.T, path string) (found map[string]string, sequence uint64, problems []error) {
	t.Helper()
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	found = map[string]string{}
	s := survey.Begin(file)
	if s.Whole() {
		sequence = s.Bucket("large", func(key, value []byte) error {
			found[string(key)] = string(value)
			return nil
		})
		s.Bucket("small", func(key, value []byte) error {
			if string(key)+"="+string(value) != "only=one" {
				return fmt.Errorf("the small bucket holds %s=%s", key, value)
			}
			return nil
		})
		s.Free()
	}
	return found, sequence, s.Problems()
}

// TestSurvey reads what bbolt wrote.
func TestSurvey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	held := makeFile(t, path)
	found, sequence, problems := read(t, path)
	if len(problems) > 0 || sequence != 12 || len(found) != len(held) {
		t.Fatalf("%d keys and sequence %d, want %d and 12; %v", len(found), sequence, len(held), problems)
	}
	for key, value := range held {
		if found[key] != value {
			t.Errorf("%s has %d bytes, want %d", key, len(found[key]), len(value))
		}
	}
}

// TestSurveyOfDamage overwrites a page's header, one page after the other. No page that
// is in use may be damaged unnoticed; one that is free has nothing to lose.
func TestSurveyOfDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	held := makeFile(t, path)
	data, err := os.ReadFile(path)
	check(t, err)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer file.Close()
	page, noticed := os.Getpagesize(), 0
	for i := range len(data) / page {
		_, err := file.WriteAt(bytes.Repeat([]byte{"\x00\xffA"[i%3]}, 16), int64(i*page))
		check(t, err)
		found, _, problems := read(t, path)
		_, err = file.WriteAt(data[i*page:][:16], int64(i*page))
		check(t, err)
		if len(problems) > 0 {
			noticed++
			continue
		}
		for key, value := range held { // a page in the middle of a value has no header
			if len(found[key]) != len(value) {
				t.Fatalf("with page %d damaged, %s has %d bytes, want %d", i, key, len(found[key]), len(value))
			}
		}
	}
	if noticed < 10 {
		t.Errorf("damage was noticed in %d pages of %d", noticed, len(data)/page)
	}
}

// TestSurveyCutOff reads files that end too early.
func TestSurveyCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	makeFile(t, path)
	info, err := os.Stat(path)
	check(t, err)
	for _, size := range []int64{0, 1, 100, int64(os.Getpagesize()), int64(2 * os.Getpagesize()), info.Size() / 8} {
		check(t, os.Truncate(path, size))
		if _, _, problems := read(t, path); len(problems) == 0 {
			t.Errorf("of %d bytes it says nothing", size)
		}
		makeFile(t, path)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
