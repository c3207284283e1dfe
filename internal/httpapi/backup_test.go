package httpapi

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// slowStorage hands out a copy once it may.
type slowStorage struct {
	path       string
	asked, may chan struct{}
}

func (s *slowStorage) Snapshot(context.Context) (*os.File, error) {
	s.asked <- struct{}{}
	<-s.may
	return os.Create(s.path)
}

func (*slowStorage) Broken() error { return nil }

// Each backup has a copy on the disk, so there is one at a time.
func TestOneBackupAtATime(t *testing.T) {
	storage := &slowStorage{filepath.Join(t.TempDir(), "copy"), make(chan struct{}), make(chan struct{})}
	registry := newFakeRegistry()
	a := newAPI(t, registry, nil)
	a.Open(Backend{Registry: registry, Locator: registry, Storage: storage, Tokens: &fakeTokens{}, Audit: &fakeAudit{}})
	ask := func() *httptest.ResponseRecorder { return serve(a, "GET", "/api/backup", "") }
	for range 3 { // each leaves room for the next
		first := make(chan *httptest.ResponseRecorder, 1)
		go func() { first <- ask() }()
		select {
		case <-storage.asked:
		case w := <-first:
			t.Fatalf("the first one: %d %s", w.Code, w.Body)
		}
		if w := ask(); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("a second one: %d %v %s", w.Code, w.Header(), w.Body)
		}
		storage.may <- struct{}{}
		if w := <-first; w.Code != 200 {
			t.Errorf("the first one: %d %s", w.Code, w.Body)
		}
	}
}
