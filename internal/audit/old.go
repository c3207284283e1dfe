package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// Earlier versions had no journal, but a file of JSON lines, and older such files with
// numbers at their ends. These files stay as they are. Nothing is added to them, their
// entries come before the journal's, and they are removed first when the log gets too
// large.
const (
	// OldName is the newest file. Older ones are called OldName.1 to OldName.9.
	OldName = "audit.jsonl"

	oldFiles = 10
)

// oldPath returns the path of the nth file; 0 is the newest.
func oldPath(data string, n int) string {
	if n == 0 {
		return filepath.Join(data, OldName)
	}
	return filepath.Join(data, fmt.Sprintf("%s.%d", OldName, n))
}

// block is the step in bytes in which a file is searched. It is longer than any line.
const block = 64 << 10

// errEnough ends a scan.
var errEnough = errors.New("enough")

// readOld reads the old files as Read does, and returns the rest of the query. It skips
// lines that are not entries, such as one that a crash broke off.
func readOld(data string, query faas.AuditQuery, emit func(line []byte) error) (faas.AuditQuery, error) {
	open, err := openOld(data)
	if err != nil {
		return query, err
	}
	defer closeAll(open)
	for i := len(open) - 1; i >= 0; i-- {
		from, err := search(open[i], query.After)
		if err != nil {
			return query, err
		}
		err = scan(open[i], from, func(line []byte, head head) error {
			if head.Seq <= query.After || head.Time.Before(query.Since) {
				return nil
			}
			if query.Limit == 0 {
				return errEnough
			}
			query.After = head.Seq
			query.Limit--
			return emit(line)
		})
		if errors.Is(err, errEnough) {
			return query, nil
		}
		if err != nil {
			return query, err
		}
	}
	return query, nil
}

// openOld opens the old files, the newest first. If an earlier version renames them
// meanwhile, one may be opened twice, but none is missed.
func openOld(data string) ([]*os.File, error) {
	var open []*os.File
	for n := range oldFiles {
		f, err := os.Open(oldPath(data, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(open)
			return nil, err
		}
		open = append(open, f)
	}
	return open, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// head has the fields by which an entry is found.
type head struct {
	Seq  uint64
	Time time.Time
}

// scan hands the entries of a file, from an offset on, to use.
func scan(file *os.File, from int64, use func(line []byte, head head) error) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(file, from, info.Size()-from), block)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF: // including a line without its end
			return nil
		case err == bufio.ErrBufferFull: // longer than any line of ours
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

// search returns an offset in a file. No entry before it has a Seq higher than after,
// and few behind it have a lower one.
func search(file *os.File, after uint64) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	var failed error
	// Find the first block whose first whole entry has a higher Seq. The wanted entries
	// may begin in the block before it.
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

// newest returns the highest Seq in the files, or 0 if there is none.
func newest(open []*os.File) (uint64, error) {
	for _, f := range open {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		// The last block usually has it. If not, read the whole file.
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

// lastOld returns the highest Seq in the old files of a data folder, or 0.
func lastOld(data string) (uint64, error) {
	open, err := openOld(data)
	if err != nil {
		return 0, err
	}
	defer closeAll(open)
	return newest(open)
}

// dropOld removes the oldest files for as long as they make the log too large.
func (l *Log) dropOld() {
	bytes := l.journal.Size()
	for n := range oldFiles {
		if info, err := os.Stat(oldPath(l.data, n)); err == nil {
			bytes += info.Size()
		}
	}
	for n := oldFiles - 1; n >= 0 && bytes > l.maxBytes; n-- {
		info, err := os.Stat(oldPath(l.data, n))
		if err == nil {
			err = os.Remove(oldPath(l.data, n))
			bytes -= info.Size()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.failed(fmt.Errorf("the audit log is larger than it should be: %w", err))
		}
	}
}
