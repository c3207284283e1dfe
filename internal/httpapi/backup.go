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

// Storage is the database.
type Storage interface {
	// Snapshot returns a copy of the database in a file that vanishes when it is
	// closed.
	Snapshot(ctx context.Context) (*os.File, error)

	// Broken returns why nothing can be stored any more, or nil.
	Broken() error
}

// backup answers GET /api/backup with a copy of the whole database, for one client at a
// time. A client knows by its length, and by its checksums, whether it got everything.
func (s *ops) backup(w http.ResponseWriter, r *http.Request, _ asked) error {
	// Each copy takes space on the disk for as long as its client takes.
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
		client.SetWriteDeadline(time.Now().Add(answerPatience)) // for each piece
		return w.Write(p)
	}), struct{ io.Reader }{file}, piece)
	if err != nil {
		panic(http.ErrAbortHandler) // what was sent must not look whole
	}
	return nil
}
