package buffer

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
)

// pieces is a reader that gives so many bytes at a time, each the next number.
type pieces struct {
	left, piece int
	at          byte
	err         error // at the end; io.EOF when nil
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.left == 0 {
		if p.err != nil {
			return 0, p.err
		}
		return 0, io.EOF
	}
	n := min(len(b), p.piece, p.left)
	for i := range n {
		b[i] = p.at
		p.at++
	}
	p.left -= n
	return n, nil
}

func TestRead(t *testing.T) {
	const most = 600_000
	for _, size := range []int{0, 1, Free - 1, Free, Free + 1, small, small + 1, step, step + 1, most, most + 1} {
		for _, known := range []bool{true, false} {
			for _, piece := range []int{1_000, 1 << 30} {
				budget := New(64 << 20)
				length := int64(-1)
				if known {
					length = int64(size)
				}
				body, err := budget.Read(&pieces{left: size, piece: piece}, length, most, Request)
				want := min(size, most)
				if err != nil || len(body.Bytes()) != want {
					t.Fatalf("%d bytes, known %v: got %d, %v", size, known, len(body.Bytes()), err)
				}
				for i, c := range body.Bytes() {
					if c != byte(i) {
						t.Fatalf("%d bytes, known %v, %d at a time: byte %d is %d", size, known, piece, i, c)
					}
				}
				if used := budget.Used(); used > int64(want)+step || want > Free && used < int64(want) || want <= Free && known && used != 0 {
					t.Errorf("%d bytes, known %v: they take %d", size, known, used)
				}
				body.Close()
				body.Close()
				if used := budget.Used(); used != 0 {
					t.Errorf("%d bytes, known %v: %d are left taken", size, known, used)
				}
			}
		}
	}
}

// TestReadFails: what has come is there, and can be given back.
func TestReadFails(t *testing.T) {
	broken := errors.New("broken")
	for size, length := range map[int]int64{10: 100, Free: Free + 1, 100_000: 200_000, 300_000: -1} {
		for err, want := range map[error]error{broken: broken, nil: io.ErrUnexpectedEOF} {
			if length < 0 && err == nil {
				continue // which is its end
			}
			budget := New(1 << 20)
			body, got := budget.Read(&pieces{left: size, piece: 1000, err: err}, length, 1<<19, Request)
			if got != want || len(body.Bytes()) != size {
				t.Errorf("%d of %d bytes: %d came, %v", size, length, len(body.Bytes()), got)
			}
			if body.Close(); budget.Used() != 0 {
				t.Errorf("%d bytes are left taken", budget.Used())
			}
		}
	}
	if body, err := (*Budget)(nil).Read(iotest.ErrReader(broken), -1, 10, Answer); err != broken || body.Close() != nil {
		t.Errorf("without a budget: %v", err)
	}
}

// TestTakenAsItComes: what is announced takes nothing; nor is memory there for it.
func TestTakenAsItComes(t *testing.T) {
	const bodies, announced = 64, 64 << 20
	budget := New(256 << 20)
	before := resident(t)
	var all []*Body
	for range bodies {
		body, err := budget.Read(&pieces{left: 100_000, piece: 10_000}, announced, announced, Request)
		if err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
		all = append(all, body)
	}
	if used := budget.Used(); used > bodies*step {
		t.Errorf("%d bodies of which 100 KB came take %d bytes", bodies, used)
	}
	if grown := resident(t) - before; grown > bodies*step {
		t.Errorf("they made the process grow by %d KB", grown>>10)
	}
	for _, body := range all {
		body.Close()
	}
}

// resident is how much memory the process has, in bytes.
func resident(t *testing.T) int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(syscall.Getpagesize())
}

// TestShares: whatever one use holds, there is something left for those that must
// go on.
func TestShares(t *testing.T) {
	const total = 32 << 20
	fill := func(b *Budget, use Use) (n int64) {
		for b.Take(1<<10, use) {
			n += 1 << 10
		}
		return n
	}
	b := New(total)
	if n := fill(b, Answer); n != total/2 {
		t.Errorf("answers take %d of %d", n, total)
	}
	if n := fill(b, Request); n != total/4 {
		t.Errorf("when answers have taken all they may, requests take %d of %d", n, total)
	}
	if n := fill(b, Small); n != total/4 {
		t.Errorf("and small ones %d", n)
	}
	// What is large is refused only behind what it may have whatever else there is.
	body, err := b.Read(&pieces{left: 1 << 20, piece: 1 << 16}, 1<<20, 1<<20, Request)
	if err != ErrFull || len(body.Bytes()) != Free {
		t.Errorf("from a full budget: %d bytes, %v", len(body.Bytes()), err)
	}
	b.Force(Connection)
	b.Give(Connection)
	if used := b.Used(); used != total {
		t.Errorf("%d of %d are taken", used, total)
	}
}

// TestReadersBeside reads bodies with many readers at once from a budget for a few
// of them: each gets its own bytes or none, and nothing stays taken.
func TestReadersBeside(t *testing.T) {
	const size = 400_000
	b := New(8 << 20)
	var all sync.WaitGroup
	var mu sync.Mutex
	whole, full := 0, 0
	for n := range 32 {
		random := rand.New(rand.NewPCG(1, uint64(n)))
		all.Go(func() {
			for range 8 {
				first := byte(random.IntN(256))
				body, err := b.Read(&pieces{left: size, piece: 1 + random.IntN(50_000), at: first}, size, size, Request)
				data := body.Bytes()
				want := make([]byte, len(data))
				for i := range want {
					want[i] = first + byte(i)
				}
				mu.Lock()
				switch {
				case !bytes.Equal(data, want):
					t.Error("a body has the bytes of another")
				case err == nil && len(data) == size:
					whole++
				case err == ErrFull:
					full++
				default:
					t.Errorf("%d bytes, %v", len(data), err)
				}
				mu.Unlock()
				body.Close()
			}
		})
	}
	all.Wait()
	if whole == 0 || b.Used() != 0 {
		t.Errorf("%d were read whole, %d refused, and %d bytes are left taken", whole, full, b.Used())
	}
}

// TestTell: what is told last is what there is, also when a call takes its time.
func TestTell(t *testing.T) {
	b := New(64 << 20)
	began, goOn, last := make(chan bool), make(chan bool), int64(0)
	first := true
	b.Tell(func(mapped int64) {
		if first {
			first = false
			began <- true
			<-goOn
		}
		last = mapped
	})
	var both sync.WaitGroup
	both.Go(func() { b.remap(tellStep) })
	<-began
	both.Go(func() { b.remap(2 * tellStep) })
	for b.mapped.Load() != 3*tellStep {
		runtime.Gosched()
	}
	goOn <- true
	both.Wait()
	if last != 3*tellStep {
		t.Errorf("%d bytes were told last, and there are %d", last, b.mapped.Load())
	}
	b.remap(-3 * tellStep)
	if last != 0 {
		t.Errorf("%d bytes were told last, and there are none", last)
	}
}

// TestFailingBesideSmall: who is refused much is in nobody's way who takes a little.
func TestFailingBesideSmall(t *testing.T) {
	b := New(1 << 20)
	var all, begun sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		begun.Add(1)
		all.Go(func() {
			begun.Done()
			for !b.Take(1<<20, Request) {
				select {
				case <-stop:
					return
				default:
				}
			}
			t.Error("more was taken than there is")
		})
	}
	begun.Wait()
	for n := range 100_000 {
		if !b.Take(1<<10, Small) {
			t.Errorf("attempt %d: there is room, and it was refused", n)
			break
		}
		b.Give(1 << 10)
	}
	close(stop)
	all.Wait()
	var none *Budget
	if none.Total() != 0 || none.Used() != 0 || !none.Take(1<<40, Answer) {
		t.Error("no budget has a bound")
	}
}
