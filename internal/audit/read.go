package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"sort"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// block is how finely a file is searched, in bytes. It is longer than any line.
const block = 64 << 10

// Read implements faas.AuditLog.
func (l *Log) Read(query faas.AuditQuery, emit func(line []byte) error) error {
	return Read(l.folder, query, emit)
}

// errEnough ends a scan.
var errEnough = errors.New("enough")

// Read reads the log of a folder, whether a dispatcher writes to it or not, as
// faas.AuditLog has it. What is written meanwhile may be missing. Lines that are
// no entries, such as one that a crash broke off, are passed over.
func Read(folder string, query faas.AuditQuery, emit func(line []byte) error) error {
	open, err := openFiles(folder)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	after := query.After
	if query.Last {
		last, err := newest(open)
		if err != nil {
			return err
		}
		if limit := uint64(query.Limit); last > limit {
			after = max(after, last-limit)
		}
	}
	left := query.Limit
	for i := len(open) - 1; i >= 0; i-- {
		from, err := search(open[i], after)
		if err != nil {
			return err
		}
		err = scan(open[i], from, func(line []byte, head head) error {
			// A file that was renamed meanwhile may be open twice.
			if head.Seq <= after || head.Time.Before(query.Since) {
				return nil
			}
			if left == 0 {
				return errEnough
			}
			after = head.Seq
			left--
			return emit(line)
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openFiles opens the files, the newest first: when they are renamed meanwhile,
// then one is opened twice, and none is missed.
func openFiles(folder string) ([]*os.File, error) {
	var open []*os.File
	for n := range files {
		f, err := os.Open(path(folder, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			for _, f := range open {
				f.Close()
			}
			return nil, err
		}
		open = append(open, f)
	}
	return open, nil
}

// head is what is needed of an entry to find it.
type head struct {
	Seq  uint64
	Time time.Time
}

// scan hands the entries of a file from an offset on to use.
func scan(file *os.File, from int64, use func(line []byte, head head) error) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(file, from, info.Size()-from), block)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF: // and a line without its end
			return nil
		case err == bufio.ErrBufferFull: // no line of ours
			continue
		case err != nil:
			return err
		}
		var head head
		if json.Unmarshal(line, &head) != nil || head.Seq == 0 {
			continue
		}
		if err := use(line, head); err != nil {
			return err
		}
	}
}

// search returns an offset in a file, before which is no entry with a Seq
// higher than after, and behind which there are not many without.
func search(file *os.File, after uint64) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	var failed error
	// The first block whose first whole entry comes behind after. The entries
	// wanted may begin in the one before it.
	n := sort.Search(int(info.Size()/block)+1, func(n int) bool {
		seq := uint64(0)
		err := scan(file, int64(n)*block, func(_ []byte, head head) error {
			seq = head.Seq
			return errEnough
		})
		if err != nil && !errors.Is(err, errEnough) {
			failed = err
		}
		return seq == 0 || seq > after
	})
	return int64(max(n-1, 0)) * block, failed
}

// newest returns the highest Seq in the files, 0 when there is none.
func newest(open []*os.File) (uint64, error) {
	for _, f := range open {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		// Most often the last block has it; of a file full of rubbish all is read.
		for _, from := range []int64{max(info.Size()-block, 0), 0} {
			seq := uint64(0)
			err := scan(f, from, func(_ []byte, head head) error {
				seq = max(seq, head.Seq)
				return nil
			})
			if err != nil || seq > 0 {
				return seq, err
			}
		}
	}
	return 0, nil
}

// lastSeq is newest of a folder.
func lastSeq(folder string) (uint64, error) {
	open, err := openFiles(folder)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	return newest(open)
}
