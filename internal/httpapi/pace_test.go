package httpapi

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// flushes counts how often what was written is sent.
type flushes struct {
	discard
	times int
}

func (f *flushes) Flush()                           { f.times++ }
func (f *flushes) SetWriteDeadline(time.Time) error { return nil }

// trickle is a connection on which a byte comes every so often, until a while has
// passed.
type trickle struct {
	begun time.Time
	every time.Duration
	over  time.Duration
	read  int
}

func (r *trickle) Read(p []byte) (int, error) {
	for {
		came := int(min(time.Since(r.begun), r.over) / r.every)
		if n := min(came-r.read, len(p)); n > 0 {
			r.read += n
			return n, nil
		}
		if time.Since(r.begun) >= r.over {
			return 0, io.EOF
		}
		time.Sleep(r.every)
	}
}

// TestSingleBytesGoOnTogether: a stream of single bytes is sent a thousand times a
// second at most, and all of it; what comes now and then is sent at once.
func TestSingleBytesGoOnTogether(t *testing.T) {
	for every, most := range map[time.Duration]int{10 * time.Microsecond: 1005, 100 * time.Microsecond: 1005, 10 * time.Millisecond: 100} {
		synctest.Test(t, func(t *testing.T) {
			from := &trickle{begun: time.Now(), every: every, over: time.Second}
			client := &flushes{discard: discard{header: http.Header{}}}
			if err := (&calls{bodies: new(bodies)}).stream(client, from); err != nil {
				t.Fatal(err)
			}
			if n := int(time.Second / every); client.written != n || client.times > most || client.times < min(n, 900) {
				t.Errorf("a byte every %v: %d of %d bytes were sent in %d pieces, and %d are allowed", every, client.written, n, client.times, most)
			}
		})
	}
}
