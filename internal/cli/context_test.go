package cli

import (
	"fmt"
	"sync"
	"testing"
)

// TestContextsAtOnce: of contexts that are set at the same time, none is lost.
func TestContextsAtOnce(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	const most = 20
	var setting sync.WaitGroup
	for i := range most {
		setting.Go(func() {
			c := ContextSet{Name: fmt.Sprintf("c%d", i), URL: "http://localhost:9999", Token: "secret"}
			if err := c.Run(); err != nil {
				t.Error(err)
			}
		})
	}
	setting.Wait()
	all, err := readContexts()
	if err != nil || len(all.Contexts) != most {
		t.Errorf("%d of %d contexts are there: %v", len(all.Contexts), most, err)
	}
}
