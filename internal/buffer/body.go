package buffer

import (
	"io"
	"syscall"
)

// Body is what came of a body or an answer. Close gives its memory back, after
// which Bytes must not be used: those of a large one are not the collector's, so
// that none of it is left as garbage, and no page is there before bytes came.
type Body struct {
	budget *Budget
	data   []byte
	taken  int64
	mapped []byte // all of it; nil for a small one
}

// Up to collected a body is the collector's, for that costs less. Up to small it
// counts as Small. Of what is larger a step is taken at a time. All in bytes.
const (
	collected = 16 << 10
	small     = 64 << 10
	step      = 256 << 10
)

// Bytes is what has come. It is valid until Close.
func (b *Body) Bytes() []byte { return b.data }

// Close gives the memory back. Doing so twice is no error.
func (b *Body) Close() error {
	if b.mapped != nil {
		syscall.Munmap(b.mapped) // of what we mapped, so it cannot fail
		b.budget.remap(-b.taken)
	}
	b.budget.Give(b.taken)
	b.data, b.mapped, b.taken = nil, nil, 0
	return nil
}

// Read reads a body of that length, or, when it is negative, up to the end, but
// never more than most bytes. What there is it returns with an error, too: the
// reader's, io.ErrUnexpectedEOF when less came than was to, or ErrFull.
func (b *Budget) Read(r io.Reader, length, most int64, use Use) (*Body, error) {
	if length < 0 || length > most {
		length = -1
	} else {
		most = length
	}
	body := &Body{budget: b, data: make([]byte, 0, min(most, Free))}
	err := body.fill(r, cap(body.data))
	if err == nil && int64(len(body.data)) < most {
		if err = body.grow(most); err == nil {
			err = body.readRest(r, use)
		}
	}
	if err == io.EOF {
		err = nil
		if length >= 0 && int64(len(body.data)) < length {
			err = io.ErrUnexpectedEOF
		}
	}
	return body, err
}

// grow makes room for that many bytes.
func (b *Body) grow(most int64) error {
	room := []byte(nil)
	if most <= collected {
		if !b.budget.Take(most, Small) {
			return ErrFull
		}
		b.taken = most
		room = make([]byte, most)
	} else {
		var err error
		room, err = syscall.Mmap(-1, 0, int(most), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err != nil {
			return ErrFull
		}
		b.mapped = room
		// Else the first byte could cost as much as a huge page has.
		syscall.Madvise(room, syscall.MADV_NOHUGEPAGE) // not all kernels know it, and then there are none
	}
	b.data = room[:copy(room, b.data)]
	return nil
}

// readRest reads until the end or there is no more room, and takes that room from the
// budget as bytes come.
func (b *Body) readRest(r io.Reader, use Use) error {
	for len(b.data) < cap(b.data) {
		until := cap(b.data)
		if b.mapped != nil {
			next, of := (len(b.data)/step+1)*step, use
			if len(b.data) < small {
				next, of = small, Small
			}
			until = min(until, next)
			if more := int64(until) - b.taken; more > 0 {
				if !b.budget.Take(more, of) {
					return ErrFull
				}
				b.taken += more
				b.budget.remap(more)
			}
		}
		if err := b.fill(r, until); err != nil {
			return err
		}
	}
	return nil
}

// fill reads until there are that many bytes.
func (b *Body) fill(r io.Reader, until int) error {
	for len(b.data) < until {
		n, err := r.Read(b.data[len(b.data):until])
		b.data = b.data[:len(b.data)+n]
		if err != nil {
			return err
		}
	}
	return nil
}
