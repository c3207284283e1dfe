package e2e

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// site is a web site: what is at each path, and what its pages reported.
type site struct {
	*httptest.Server

	mu      sync.Mutex
	pages   map[string]string
	reports map[string]string
}

// newSite runs a web site until the test ends. Its pages, which show sets, have
// a function report(what, value).
func newSite(t *testing.T) *site {
	s := &site{reports: make(map[string]string)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		page, ok := s.pages[r.URL.Path]
		s.mu.Unlock()
		switch {
		case r.URL.Path == "/report":
			said, _ := io.ReadAll(r.Body)
			s.mu.Lock()
			s.reports[r.URL.Query().Get("what")] = string(said)
			s.mu.Unlock()
		case r.URL.Path == "/bounce":
			http.Redirect(w, r, r.FormValue("to"), http.StatusFound)
		case ok:
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, s.page(page))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// show sets the scripts of its pages.
func (s *site) show(pages map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = pages
}

// page is a document with a script.
func (s *site) page(script string) string {
	return `<!doctype html><body><script>
const report = (what, value) => fetch('` + s.URL + `/report?what=' + what, {method: 'POST', mode: 'no-cors', body: String(value)});
` + script + `</script>`
}

// at is a URL of the site under another name of this machine.
func (s *site) at(name, path string) string {
	return "http://" + net.JoinHostPort(name, s.port()) + path
}

func (s *site) port() string {
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return port
}

// until opens a page until its reports are such that check says of none that it
// is wrong.
func (s *site) until(t *testing.T, url func() string, check func(reports map[string]string) (wrong []string)) {
	t.Helper()
	var wrong []string
	again(t, func() []string { return []string{url()} }, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		wrong = check(s.reports)
		return len(wrong) == 0
	})
	for _, w := range wrong {
		t.Error(w)
	}
}

// wants is until for reports that begin as they should.
func (s *site) wants(t *testing.T, url string, want map[string]string) {
	t.Helper()
	s.until(t, func() string { return url }, func(reports map[string]string) (wrong []string) {
		for what, prefix := range want {
			if got, there := reports[what]; !there || !strings.HasPrefix(got, prefix) {
				wrong = append(wrong, fmt.Sprintf("%s: the page reported %.500q, want %q", what, got, prefix))
			}
		}
		return wrong
	})
}

// again opens pages, each in a browser of its own, until all is well, and gives
// up after some times. That it takes more than one is since browsers drop what
// they have under way (ERR_NETWORK_CHANGED) when the machine gets another
// address, as it does whenever a container comes or goes.
func again(t *testing.T, urls func() []string, well func() bool) {
	t.Helper()
	for range 5 {
		var closing []func()
		for _, url := range urls() {
			closing = append(closing, browser(t, url))
		}
		deadline := time.Now().Add(15 * time.Second)
		for !well() && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		for _, close := range closing {
			close()
		}
		if well() {
			return
		}
	}
}

// recorder passes requests on to a dispatcher, and keeps what they were answered
// with, by the value of their parameter by.
type recorder struct {
	*httptest.Server

	mu      sync.Mutex
	app     string
	answers map[string]int
}

// show sets the recorder's page.
func (r *recorder) show(app string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.app = app
}

// missing returns which of these requests have not been made, after some patience.
func (r *recorder) missing(patience time.Duration, by []string) (missing []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		missing = nil
		r.mu.Lock()
		for _, b := range by {
			if r.answers[b] == 0 {
				missing = append(missing, b)
			}
		}
		r.mu.Unlock()
		if len(missing) == 0 || time.Now().After(deadline) {
			return missing
		}
	}
}

// newRecorder runs a recorder until the test ends. At /app it has a page of its
// own, which is of the dispatcher's origin for a browser.
func newRecorder(t *testing.T, to, app string) *recorder {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{app: app, answers: make(map[string]int)}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(answer *http.Response) error {
			if by := answer.Request.URL.Query().Get("by"); by != "" && answer.Request.Method != http.MethodOptions {
				r.mu.Lock()
				r.answers[by] = answer.StatusCode
				r.mu.Unlock()
			}
			return nil
		},
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		if in.URL.Path == "/app" {
			w.Header().Set("Content-Type", "text/html")
			r.mu.Lock()
			defer r.mu.Unlock()
			io.WriteString(w, r.app)
			return
		}
		proxy.ServeHTTP(w, in)
	}))
	t.Cleanup(r.Close)
	return r
}

// wants opens pages until they have made all of these requests, and fails the
// test unless each was answered with that status.
func (r *recorder) wants(t *testing.T, status int, urls, by []string) {
	t.Helper()
	var got map[string]int
	again(t, func() []string { return urls }, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		got = maps.Clone(r.answers)
		for _, b := range by {
			if got[b] == 0 {
				return false
			}
		}
		return true
	})
	for _, b := range by {
		if got[b] != status {
			t.Errorf("%s was answered %d, want %d", b, got[b], status)
		}
	}
}

// rebinding is an address that has the attacker's page at first, and then the
// dispatcher, as a name does that is given another address.
type rebinding struct{ net.Listener }

func (r rebinding) port() string { return fmt.Sprint(r.Addr().(*net.TCPAddr).Port) }

func newRebinding(t *testing.T, dispatcher, page string) rebinding {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var relays sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		relays.Wait()
	})
	served := make(chan struct{})
	relay := func(nc net.Conn) {
		defer nc.Close()
		first := make([]byte, 64<<10)
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := nc.Read(first)
		if err != nil {
			return // a browser connects ahead
		}
		nc.SetReadDeadline(time.Time{})
		if strings.HasPrefix(string(first[:n]), "GET / ") {
			fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(page), page)
			close(served)
			return
		}
		<-served
		to, err := net.Dial("tcp", dispatcher)
		if err != nil {
			return
		}
		defer to.Close()
		to.Write(first[:n])
		go func() {
			io.Copy(to, nc)
			to.Close()
		}()
		io.Copy(nc, to)
	}
	relays.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			go relay(nc)
		}
	})
	return rebinding{listener}
}
