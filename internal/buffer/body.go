package buffer

import (
	"io"
	"syscall"
)

// Body is the part of a body or an answer that has been read. Close gives its memory
// back; after that Bytes must not be used. The memory of a large Body is mapped, not
// the collector's: none of it stays behind as garbage, and pages are only used as bytes
// come.
type Body struct {
	budget *Budget
	data   []byte
	taken  int64
	mapped []byte // the whole mapping; nil for a small Body
}

// Sizes in bytes. Up to collected a Body is the collector's memory, which is cheaper.
// Up to small it counts as Small. A larger one takes a step of the budget at a time.
const (
	collected = 16 << 10
	small     = 64 << 10
	step      = 256 << 10
)

// Bytes returns what has been read. It is valid until Close.
func (b *Body) Bytes() []byte { return b.data }

// Close gives the memory back. Closing twice is no error.
func (b *Body) Close() error {
	if b.mapped != nil {
		syscall.Munmap(b.mapped) // cannot fail for a mapping of ours
		b.budget.remap(-b.taken)
	}
	b.budget.Give(b.taken)
	b.data, b.mapped, b.taken = nil, nil, 0
	return nil
}

// Read reads a body of a known length, or, if length is negative, to its end. It never
// reads more than most bytes. With an error it still returns what has been read. The
// error is the reader's, io.ErrUnexpectedEOF if the body was shorter than length, or
// ErrFull.
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

// grow makes the memory for that many bytes.
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
		// Otherwise the first byte could use as much memory as a huge page.
		syscall.Madvise(room, syscall.MADV_NOHUGEPAGE) // fails if the kernel has no huge pages
	}
	b.data = room[:copy(room, b.data)]
	return nil
}

// readRest reads until the end or until the budget is full. It takes the budget as
// bytes come.
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

// fill reads until the body has that many bytes.
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
