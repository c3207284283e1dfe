package httpapi

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// Storage is the file that the functions are kept in.
type Storage interface {
	// Snapshot returns a copy of the database, in a file that is gone when it
	// is closed.
	Snapshot(ctx context.Context) (*os.File, error)

	// Broken returns why nothing can be stored any more, or nil.
	Broken() error
}

// backup answers GET /api/backup: it sends a copy of the whole database, to one
// client at a time. A client tells a whole one by its length, and by the
// checksums in it.
func (s *ops) backup(w http.ResponseWriter, r *http.Request, _ asked) error {
	// Each has a copy on the disk for as long as its client takes.
	if !s.copying.TryLock() {
		return faas.Errorf(faas.CodeNoCapacity, "another backup is being fetched").After(time.Second)
	}
	defer s.copying.Unlock()
	file, err := s.storage.Snapshot(r.Context())
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	inert(w.Header())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	w.WriteHeader(http.StatusOK)
	client := http.NewResponseController(w)
	defer client.SetWriteDeadline(time.Time{})
	piece := make([]byte, answerPiece)
	_, err = io.CopyBuffer(writerFunc(func(p []byte) (int, error) {
		client.SetWriteDeadline(time.Now().Add(answerPatience)) // of each piece
		return w.Write(p)
	}), struct{ io.Reader }{file}, piece)
	if err != nil {
		panic(http.ErrAbortHandler) // what was sent is not to look whole
	}
	return nil
}
