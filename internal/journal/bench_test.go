package journal

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/flockofbirds/fob/internal/durable/powercut"
)

// million is a journal of 1,000,000 records of 100 bytes, in segments of that size.
func million(b *testing.B, segment int64) (folder string) {
	b.Helper()
	folder = powercut.Memory(b)
	j, err := Open(folder, Options{Segment: segment})
	check(b, err)
	payload := make([]byte, 100)
	for n := range uint64(1_000_000) {
		binary.LittleEndian.PutUint64(payload, n)
		if _, err := j.Append(payload); err != nil { // check is slow
			b.Fatal(err)
		}
	}
	check(b, j.Close())
	b.ResetTimer()
	return folder
}

// BenchmarkOpen opens a journal of 1,000,000 records: all of them in the segment
// that has to be read for it, and in segments of the usual size.
func BenchmarkOpen(b *testing.B) {
	for name, segment := range map[string]int64{"one-segment": math.MaxInt64, "8MB-segments": 0} {
		b.Run(name, func(b *testing.B) {
			folder := million(b, segment)
			for b.Loop() {
				j, err := Open(folder, Options{Segment: segment})
				check(b, err)
				if j.last != 1_000_000 {
					b.Fatalf("the last is %d", j.last)
				}
				check(b, j.Close())
			}
		})
	}
}

// BenchmarkRead reads and checks 1,000,000 records.
func BenchmarkRead(b *testing.B) {
	folder := million(b, 0)
	for b.Loop() {
		n := 0
		for _, err := range Records(folder, 0) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 1_000_000 {
			b.Fatalf("there are %d", n)
		}
	}
}

// BenchmarkFind finds a record of 1,000,000 by its number, and by its position.
func BenchmarkFind(b *testing.B) {
	folder := million(b, 0)
	b.Run("number", func(b *testing.B) {
		for n := uint64(0); b.Loop(); n += 7919 {
			for r, err := range Records(folder, n%1_000_000) {
				check(b, err)
				if r.Number != n%1_000_000+1 {
					b.Fatal(r.Number)
				}
				break
			}
		}
	})
	b.Run("position", func(b *testing.B) {
		j, err := Open(folder, Options{})
		check(b, err)
		defer j.Close()
		r, err := j.Append(make([]byte, 100))
		check(b, err)
		for b.Loop() {
			_, err := j.At(r.Position)
			check(b, err)
		}
	})
}

// BenchmarkAppend is what a record costs that nobody waits for, and one that is
// synced, with one and more that wait.
func BenchmarkAppend(b *testing.B) {
	payload := make([]byte, 200)
	b.Run("unsynced", func(b *testing.B) {
		j := open(b, filepath.Join(b.TempDir(), "journal"), Options{MaxBytes: 1 << 30})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := j.Append(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("synced-%d", clients), func(b *testing.B) {
			j := open(b, filepath.Join(b.TempDir(), "journal"), Options{MaxBytes: 1 << 30})
			b.SetParallelism(clients) // times GOMAXPROCS
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := j.AppendSync(payload); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
