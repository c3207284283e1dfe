package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// journals looks at all segments of the three journals, once they have what was hidden.
func (h *hunt) journals(t *testing.T, data string) {
	t.Helper()
	for journal, texts := range map[string][]string{
		"audit":   {"secret.put", "CANARY"},
		"history": {"with ***"},
		"logs":    {"at import ***", "printed ***", "logged ***", "thrown ***", "in a stream ***", "crashing with ***"},
	} {
		for _, text := range texts {
			eventually(t, time.Minute, "the journal "+journal+" has "+text, func() bool { return below(filepath.Join(data, journal), text) })
		}
		h.files(journal+" journal", filepath.Join(data, journal))
	}
}

// below reports whether a file below a folder has a text.
func below(folder, text string) (found bool) {
	filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			data, _ := os.ReadFile(path)
			found = found || bytes.Contains(data, []byte(text))
		}
		return nil
	})
	return found
}

// dispatcherLog looks at the log of a dispatcher that has ended. It must have the lines of
// calls that failed, with what was hidden.
func (h *hunt) dispatcherLog(t *testing.T, p *dispatcher) {
	t.Helper()
	log := p.Log.String()
	h.look("dispatcher's log", "", []byte(log))
	for _, lang := range []string{"python", "node"} {
		line := regexp.MustCompile(`"level":"warn".*"name":"` + lang + `-raises".*"outcome":"function_raised","error":"[^"]*with \*\*\*.*"a call failed"`)
		if !line.MatchString(log) {
			t.Errorf("the dispatcher's log has no line of the call of %s-raises that failed", lang)
		}
	}
}

// TestCanaryOfProcesses hunts a secret through the log and the data folder of a dispatcher
// whose log also has what functions print.
func TestCanaryOfProcesses(t *testing.T) {
	t.Parallel()
	value := "canary-" + rand.Text()
	h := newHunt(t.Errorf, value)
	data := shortDir(t)
	p := boot(t, "FOB_DATA="+data, "FOB_POOL=python=1,node=1")
	p.do("PUT", "/api/secrets/CANARY", value).wantsStatus(t, 201)
	for i, lang := range []string{"python", "node"} {
		for _, name := range []string{"raises", "prints", "streams", "crashes"} {
			ref := lang + "-" + name
			p.do("PUT", "/api/functions/"+ref+"?secrets=CANARY&lang="+lang, canaryFunctions[name][i]).wantsStatus(t, 201)
			a, _ := p.try("GET", "/api/call/"+ref, "")
			h.look("answer", ref, fmt.Appendf(nil, "%v %s", a.Header, a.Body))
		}
	}
	h.journals(t, data)
	p.terminate()
	h.dispatcherLog(t, p)
	for _, text := range []string{"at import ***", "printed ***", "logged ***", "thrown ***", "crashing with ***"} {
		if !regexp.MustCompile(`"level":"info".*` + regexp.QuoteMeta(text)).MatchString(p.Log.String()) {
			t.Errorf("the dispatcher's log lacks %q", text)
		}
	}
	h.files("data folder", data)
}
