package audit

import "testing"

// BenchmarkRecord is what an entry adds to a change: a sync.
func BenchmarkRecord(b *testing.B) {
	for name, clients := range map[string]int{"one": 1, "sixteen": 16} {
		b.Run(name, func(b *testing.B) {
			l, err := Open(b.TempDir(), MaxBytes, func(err error) { b.Error(err) })
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			b.SetParallelism(clients)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Record(change("hello"))
				}
			})
		})
	}
}
