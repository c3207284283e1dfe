package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// A segment is a file of frames, one after the other. A frame has, with the low byte of
// its numbers first:
//
//	 0  4  checksum of the 24 bytes that follow
//	 4  4  length of the payload in bytes
//	 8  8  number of the record
//	16  8  when it was written, in nanoseconds since 1970
//	24  4  checksum of the payload
//	28     the payload
//
// Both checksums are CRC-32C. The header's begins with the segment's salt and the
// frame's offset. So when a frame is damaged, nothing in its payload can pass for a
// frame: a forged one would need the salt, which nobody who fills payloads knows, and
// the copy of a real one is at another offset.
//
// The first frame of a segment is not a record. Its payload is beginning, its number
// that of the last record written before, and its time when the segment was begun.
const (
	headerSize = 28
	beginning  = "fob journal 1\n"
	beginSize  = headerSize + int64(len(beginning))
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame appends a frame for a given offset of a segment.
func appendFrame(to []byte, salt uint32, offset int64, number uint64, at time.Time, payload []byte) []byte {
	start := len(to)
	to = append(to, make([]byte, headerSize)...)
	to = append(to, payload...)
	header := to[start:][:headerSize]
	binary.LittleEndian.PutUint32(header[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(header[8:], number)
	binary.LittleEndian.PutUint64(header[16:], uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(header[24:], crc32.Checksum(to[start+headerSize:], castagnoli))
	binary.LittleEndian.PutUint32(header, headerSum(salt, offset, header))
	return to
}

func headerSum(salt uint32, offset int64, header []byte) uint32 {
	return crc32.Update(salt^uint32(offset)^uint32(offset>>32), castagnoli, header[4:headerSize])
}

// frame is a frame as it was read.
type frame struct {
	begins  bool // the first frame of its segment
	number  uint64
	time    time.Time
	payload []byte // valid until the next frame is read
	offset  int64
}

// scanner reads the frames of a segment. It skips whatever is not a frame. A caller
// that cares compares a frame's offset with the end of the one before.
type scanner struct {
	file  io.ReaderAt
	size  int64 // how far it reads
	salt  uint32
	last  uint64 // records have higher numbers than this
	bound uint64 // and lower ones than this
	end   int64  // end of the last frame, or 0

	at     int64 // where it looks for the next frame
	ahead  int64 // how much it reads at a time, in bytes
	from   int64 // where the window begins
	window []byte
}

// readAhead is the value of ahead for reading a whole segment.
const readAhead = 128 << 10

// errVersion says that a segment does not begin as ours do.
var errVersion = errors.New("it was written by another version")

// next returns the next frame. If there is none, ok is false.
func (s *scanner) next() (f frame, ok bool, err error) {
	for s.at+headerSize <= s.size {
		header, err := s.peek(headerSize)
		if err != nil {
			return frame{}, false, err
		}
		if len(header) < headerSize {
			break
		}
		length := int64(binary.LittleEndian.Uint32(header[4:]))
		sum := binary.LittleEndian.Uint32(header[24:])
		f := frame{
			begins: s.at == 0,
			number: binary.LittleEndian.Uint64(header[8:]),
			time:   time.Unix(0, int64(binary.LittleEndian.Uint64(header[16:]))),
			offset: s.at,
		}
		fits := f.begins && f.number < s.bound || f.number > s.last && f.number < s.bound
		if !fits || binary.LittleEndian.Uint32(header) != headerSum(s.salt, s.at, header) {
			s.at++
			continue
		}
		if s.at+headerSize+length > s.size { // the file has only a part of it, and nothing follows
			s.at = s.size
			break
		}
		whole, err := s.peek(headerSize + length)
		if err != nil {
			return frame{}, false, err
		}
		s.at += headerSize + length
		if int64(len(whole)) < headerSize+length || crc32.Checksum(whole[headerSize:], castagnoli) != sum {
			continue
		}
		f.payload, s.end = whole[headerSize:], s.at
		if !f.begins {
			s.last = f.number
		} else if string(f.payload) != beginning {
			return frame{}, false, errVersion
		}
		return f, true, nil
	}
	return frame{}, false, nil
}

// peek returns the next n bytes, or fewer if the file has become shorter.
func (s *scanner) peek(n int64) ([]byte, error) {
	if s.at < s.from || s.at+n > s.from+int64(len(s.window)) {
		size := min(max(n, s.ahead), s.size-s.at)
		if int64(cap(s.window)) < size {
			s.window = make([]byte, size)
		}
		read, err := s.file.ReadAt(s.window[:size], s.at)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("at byte %d: %w", s.at, err)
		}
		s.from, s.window = s.at, s.window[:read]
		if int64(read) < size {
			s.size = s.at + int64(read)
			n = min(n, int64(read))
		}
	}
	return s.window[s.at-s.from:][:n], nil
}

// noBound is the bound of the last segment.
const noBound = math.MaxUint64
