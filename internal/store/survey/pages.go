package survey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// page reads a page with its overflow pages, and marks them as seen.
func (s *Survey) page(number uint64) (text []byte, err error) {
	if number >= s.meta.pages {
		return nil, fmt.Errorf("page %d is asked for, and there are %d", number, s.meta.pages)
	}
	header := make([]byte, pageHeader)
	if _, err := s.file.ReadAt(header, int64(number)*s.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", number, err)
	}
	if says := binary.NativeEndian.Uint64(header); says != number {
		return nil, fmt.Errorf("page %d says that it is page %d", number, says)
	}
	pages := uint64(binary.NativeEndian.Uint32(header[12:])) + 1
	if pages > s.meta.pages-number {
		return nil, fmt.Errorf("page %d goes on for %d pages, past the end", number, pages)
	}
	for i := number; i < number+pages; i++ {
		if s.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		s.seen[i] = true
	}
	text = make([]byte, int64(pages)*s.pageSize)
	if _, err := s.file.ReadAt(text, int64(number)*s.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", number, err)
	}
	return text, nil
}

// tree reads a tree of pages. All its keys must be at least first, which is the very
// first of them, and less than end. Either may be nil.
func (s *Survey) tree(number uint64, depth int, first, end []byte, each func(flags uint32, key, value []byte) error) {
	text, err := s.page(number)
	if err == nil && depth > maxDepth {
		err = fmt.Errorf("page %d is %d pages below the root", number, depth)
	}
	if err != nil {
		s.Problem(err)
		return
	}
	switch kind := binary.NativeEndian.Uint16(text[8:]); kind {
	case leafPage:
		if err := s.leaf(text, first, end, each); err != nil {
			s.Problem(fmt.Errorf("page %d: %w", number, err))
		}
	case branchPage:
		keys, children, err := branch(text, first, end)
		if err != nil {
			s.Problem(fmt.Errorf("page %d: %w", number, err))
			return
		}
		for i, child := range children {
			below := end
			if i+1 < len(keys) {
				below = keys[i+1]
			}
			s.tree(child, depth+1, keys[i], below, each)
		}
	default:
		s.Problem(fmt.Errorf("page %d has type %d, want a tree's", number, kind))
	}
}

// element returns the bytes to which the element at offset at points, and whether they
// are within text.
func element(text []byte, at int, pos, length uint32) ([]byte, bool) {
	from := int64(at) + int64(pos)
	to := from + int64(length)
	if to > int64(len(text)) {
		return nil, false
	}
	return text[from:to:to], true
}

// elements returns the number of elements that a page states, if there is room for
// them.
func elements(text []byte) (int, error) {
	n := int(binary.NativeEndian.Uint16(text[10:]))
	if pageHeader+n*elementSize > len(text) {
		return 0, fmt.Errorf("%d elements do not fit in", n)
	}
	return n, nil
}

// ordered checks the order of an element's key. before is the key before it.
func ordered(i int, key, before, first, end []byte) error {
	switch {
	case len(key) == 0:
		return fmt.Errorf("element %d has no key", i)
	case i == 0 && first != nil && !bytes.Equal(key, first):
		return fmt.Errorf("it begins with key %.80q, want %.80q", key, first)
	case i > 0 && bytes.Compare(key, before) <= 0:
		return fmt.Errorf("key %.80q comes after %.80q", key, before)
	case end != nil && bytes.Compare(key, end) >= 0:
		return fmt.Errorf("key %.80q should be below %.80q", key, end)
	}
	return nil
}

func branch(text, first, end []byte) (keys [][]byte, children []uint64, err error) {
	n, err := elements(text)
	if err == nil && n == 0 {
		err = errors.New("a branch to nowhere")
	}
	if err != nil {
		return nil, nil, err
	}
	var before []byte
	for i := range n {
		at := pageHeader + i*elementSize
		e := text[at:]
		key, ok := element(text, at, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]))
		if !ok {
			return nil, nil, fmt.Errorf("element %d points past its end", i)
		}
		if err := ordered(i, key, before, first, end); err != nil {
			return nil, nil, err
		}
		keys, children, before = append(keys, key), append(children, binary.NativeEndian.Uint64(e[8:])), key
	}
	return keys, children, nil
}

// leaf reads the keys and values of a page. An error of each becomes a problem; an
// error of the page itself ends the page.
func (s *Survey) leaf(text, first, end []byte, each func(flags uint32, key, value []byte) error) error {
	n, err := elements(text)
	if err == nil && n == 0 && first != nil {
		err = errors.New("an empty leaf")
	}
	if err != nil {
		return err
	}
	var before []byte
	for i := range n {
		at := pageHeader + i*elementSize
		e := text[at:]
		pos, keySize, valueSize := binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		key, ok1 := element(text, at, pos, keySize)
		value, ok2 := element(text, at+len(key), pos, valueSize)
		if !ok1 || !ok2 {
			return fmt.Errorf("element %d points past its end", i)
		}
		if err := ordered(i, key, before, first, end); err != nil {
			return err
		}
		if err := each(binary.NativeEndian.Uint32(e), key, value); err != nil {
			s.Problem(err)
		}
		before = key
	}
	return nil
}
