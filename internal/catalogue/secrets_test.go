package catalogue

import (
	"errors"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestNamedSecrets: a registration holds on to the secrets that it names as long as it
// goes on, whether it succeeds or not.
func TestNamedSecrets(t *testing.T) {
	w := newWorld(t)
	if _, _, err := w.PutSecret(t.Context(), "KEY", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	draft := faas.Draft{Code: "def callme(): pass", Settings: settings("secrets=KEY")}
	for _, broken := range []error{errors.New("broken"), nil} {
		w.runner.err = broken
		if _, err := w.Create(t.Context(), "", draft); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if len(w.named.times) > 0 {
			t.Errorf("still named are %v", w.named.times)
		}
	}
	if err := w.DeleteSecret(t.Context(), "KEY"); faas.CodeOf(err) != faas.CodeInUse {
		t.Errorf("deleted: %v", err)
	}
}
