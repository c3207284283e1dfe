package egress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestAddresses(t *testing.T) {
	rule := addressRule{
		private: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("168.63.129.16/32")},
		own:     func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("5.6.7.8")}, nil },
	}
	for text, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "2606:4700::1111": true, "::ffff:1.1.1.1": true, "172.15.255.255": true, "172.32.0.0": true, "100.63.255.255": true, "100.128.0.0": true,
		"127.0.0.1": false, "127.255.255.254": false, "::1": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "::ffff:192.168.1.1": false, "fc00::1": false,
		"100.64.0.1": false, "192.0.0.8": false, "192.0.2.1": false, "198.18.0.1": false, "198.19.255.255": false, "198.51.100.1": false, "203.0.113.1": false, "192.88.99.1": false,
		"224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false, "ff02::1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false,
		"2001:db8::1": false, "3fff::1": false, "2001::1": false, "2001:2::1": false, "2001:20::1": false, "2002:7f00:1::": false, "2002:808:808::": false, "100::1": false, "5f00::1": false,
		"64:ff9b::8.8.8.8": true, "64:ff9b::127.0.0.1": false, "64:ff9b::169.254.169.254": false, "64:ff9b::10.0.0.1": false, "64:ff9b::10.1.0.1": true, "64:ff9b:1::808:808": false,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.2.0.1": false, "169.254.1.1": true, "fd12::1": true, // as the operator says
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "169.254.170.2": false, "fd00:ec2::254": false, "100.100.100.200": false, // whatever range has it
		"168.63.129.16": true,  // listed by itself
		"5.6.7.8":       false, // this machine's
	} {
		if err := rule.check(netip.MustParseAddr(text)); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	rule.private = []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("5.6.7.8/32")}
	for _, text := range []string{"169.254.169.254", "::ffff:169.254.169.254", "5.6.7.8"} {
		if err := rule.check(netip.MustParseAddr(text)); err != nil {
			t.Errorf("%s is listed: %v", text, err)
		}
	}
	if err := (addressRule{private: prefixes("168.63.0.0/16")}).check(netip.MustParseAddr("168.63.129.16")); err == nil {
		t.Error("a range that holds a metadata address allows it")
	}
	broken := addressRule{own: func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }}
	if broken.check(netip.MustParseAddr("1.1.1.1")) == nil {
		t.Error("an address was allowed although this machine's own are not known")
	}
}

func TestOwnAddresses(t *testing.T) {
	own, err := ownAddresses()
	if err != nil || len(own) == 0 {
		t.Fatalf("%v, %v", own, err)
	}
	if err := (addressRule{own: ownAddresses, private: prefixes("0.0.0.0/0", "::/0")}).check(own[0]); err != nil {
		t.Errorf("%v, which is listed: %v", own[0], err)
	}
}

// echo is a server that says greeting, and then what it is told.
func echo(t *testing.T) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "hello ")
				io.Copy(conn, conn)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port
}

func TestTunnel(t *testing.T) {
	port := echo(t)
	ask := names(t, map[string][]string{"good.example": {"127.0.0.1"}})
	g := open(t, "allow=good.example:"+port, func(p *Proxy) { ask(p); loopback(p) })
	for _, to := range []string{"good.example:" + port, "GOOD.example.:" + port} {
		conn := g.connect(to)
		// What a client says is passed on to its end, and the answer after that.
		io.WriteString(conn, "and good bye")
		conn.(*net.UnixConn).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello and good bye" {
			t.Errorf("%s: %q, %v", to, got, err)
		}
	}
	// What comes with CONNECT is not lost.
	conn := g.dial()
	fmt.Fprintf(conn, "CONNECT good.example:%s HTTP/1.1\r\nHost: x\r\n\r\nearly", port)
	want := "HTTP/1.1 200 Connection established\r\n\r\nhello early"
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("%q, %v", got[:n], err)
	}
	conn.Close()
	g.wants(map[Outcome]int{Allowed: 3})
	eventually(t, "no connection is open", func() bool { return g.proxy.open.Load() == 0 })
}

func TestTargets(t *testing.T) {
	port := echo(t)
	ask := names(t, map[string][]string{
		"example.com": {"127.0.0.1"}, "www.example.com": {"127.0.0.1"}, "evilexample.com": {"127.0.0.1"}, "xn--bcher-kva.example": {"127.0.0.1"},
		"inside.example.com": {"127.0.0.2"}, "meta.example.com": {"169.254.169.254"},
	})
	list := strings.ReplaceAll("allow=example.com:PORT,*.example.com:PORT,xn--bcher-kva.example:PORT,127.0.0.1:PORT,127.0.0.3:PORT,[::1]:PORT,missing.example:PORT", "PORT", port)
	g := open(t, list, func(p *Proxy) { ask(p); loopback(p) })
	for to, want := range map[string]int{
		"example.com:PORT": 200, "EXAMPLE.COM:PORT": 200, "example.com.:PORT": 200, "www.example.com:PORT": 200, "xn--bcher-kva.example:PORT": 200, "127.0.0.1:PORT": 200, "[::ffff:127.0.0.1]:PORT": 200,
		// not listed
		"evilexample.com:PORT": 403, "example.com:1": 403, "example.com:443": 403, "example.com.evil.com:PORT": 403, "127.0.0.2:PORT": 403, "[::2]:PORT": 403,
		// listed, and nowhere to go
		"inside.example.com:PORT": 403, "meta.example.com:PORT": 403, "127.0.0.3:PORT": 403, "[::1]:PORT": 403, "nobody.example.com:PORT": 502, "missing.example:PORT": 502,
		// no target
		"example.com": 400, "example.com:": 400, "example.com:0": 400, "example.com:99999": 400, ":PORT": 400, "user@example.com:PORT": 400, "example.com:PORT@evil.com:PORT": 400,
		"2130706433:PORT": 400, "0x7f000001:PORT": 400, "0x7f.1:PORT": 400, "127.1:PORT": 400, "0177.0.0.1:PORT": 400, "[fe80::1%25lo]:PORT": 400, "[::1:PORT": 400, "::1:PORT": 400,
		"b\u00fccher.example:PORT": 400, "example..com:PORT": 400, "exa%6dple.com:PORT": 400, "example.com/:PORT": 400,
	} {
		to = strings.ReplaceAll(to, "PORT", port)
		status, body := g.ask(g.dial(), "CONNECT "+to+" HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if status != want {
			t.Errorf("CONNECT %s: %d %s", to, status, body)
		}
		if strings.Contains(body, "127.0.0.2") && !strings.Contains(to, "127.0.0.2") || strings.Contains(body, "169.254") {
			t.Errorf("CONNECT %s: tells an address: %s", to, body)
		}
	}
	// The reason says what to do, for that is what most clients show.
	conn := g.dial()
	io.WriteString(conn, "CONNECT evil.com:443 HTTP/1.1\r\nHost: evil.com\r\n\r\n")
	if line, _ := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 403 fob: evil.com:443 is not among") || !strings.Contains(line, "network=allow=") {
		t.Errorf("the answer begins with %q", line)
	}
}

func TestRebinding(t *testing.T) {
	port := echo(t)
	ask := names(t, map[string][]string{"rebound.example": {"127.0.0.1", "127.0.0.9"}})
	g := open(t, "allow=rebound.example:"+port, func(p *Proxy) { ask(p); loopback(p) })
	g.connect("rebound.example:" + port)
	// The name has been looked at; its next address is another.
	for range 3 {
		if status, body := g.ask(g.dial(), "CONNECT rebound.example:"+port+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 403 || strings.Contains(body, "127.") {
			t.Errorf("answered %d %s", status, body)
		}
	}
	g.wants(map[Outcome]int{Allowed: 1, RefusedAddress: 3})
	if !strings.Contains(g.logged(), `"address":"127.0.0.9"`) {
		t.Errorf("the log does not tell the address:\n%s", g.logged())
	}
}

func TestPlainRequests(t *testing.T) {
	var seen recorder
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.add(fmt.Sprint(r.Method, " ", r.Host, " ", r.URL.RequestURI(), " ", r.Header))
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/away" {
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
			return
		}
		w.Header().Set("Keep-Alive", "timeout=9")
		fmt.Fprintf(w, "%s%s", r.Host, body)
	}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	ask := names(t, map[string][]string{"good.example": {"127.0.0.1"}, "meta.example": {"169.254.169.254"}})
	g := open(t, "allow=good.example:"+port+",meta.example", func(p *Proxy) { ask(p); loopback(p) })

	good := "good.example:" + port
	client := g.client()
	response, err := client.Post("http://"+good+"/a?q=1;2&x=%zz", "text/plain", strings.NewReader(" body"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != 200 || string(body) != good+" body" || response.Header.Get("Keep-Alive") != "" || response.Header.Get("Via") != "" {
		t.Errorf("answered %d %v %s", response.StatusCode, response.Header, body)
	}
	// Each step of a redirection is a request of its own.
	for _, to := range []string{"http://169.254.169.254/latest", "http://meta.example/latest", "http://evil.example/"} {
		response, err := client.Get("http://" + good + "/away?to=" + to)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 403 {
			t.Errorf("redirected to %s: %d", to, response.StatusCode)
		}
	}
	// Where it goes is said by the URL, whatever the header Host says, and what
	// concerns the proxy alone stays here.
	seen.take()
	conn := g.dial()
	status, got := g.ask(conn, "GET http://"+good+"/ HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n"+
		"Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nX-Forwarded-For: 9.9.9.9\r\nUpgrade: websocket\r\n\r\n")
	if status != 200 || got != good {
		t.Errorf("answered %d %s", status, got)
	}
	requests := seen.take()
	for _, name := range []string{"Proxy-", "X-Secret", "X-Forwarded", "Via", "Upgrade", "evil.example", "Forwarded", "User-Agent"} {
		if len(requests) != 1 || strings.Contains(requests[0], name) {
			t.Errorf("the server saw %q", requests)
		}
	}
	// A kept connection is looked at anew for each request.
	for _, text := range []string{
		"GET http://evil.example/ HTTP/1.1\r\nHost: " + good + "\r\n\r\n",
		"POST http://evil.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
	} {
		if status, _ := g.ask(conn, text); status != 403 {
			t.Errorf("%q answered %d", text, status)
		}
	}
	if status, _ := g.ask(conn, "GET http://"+good+"/ HTTP/1.1\r\nHost: x\r\n\r\n"); status != 200 {
		t.Errorf("answered %d", status)
	}
	for text, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n":                                          400,
		"OPTIONS * HTTP/1.1\r\nHost: " + good + "\r\n\r\n":                                      400,
		"GET https://" + good + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                                 400,
		"GET ftp://" + good + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                                   400,
		"GET http:///x HTTP/1.1\r\nHost: " + good + "\r\n\r\n":                                  400,
		"GET http://me:pw@" + good + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                            400,
		"GET http://" + good + "@evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n":                     400,
		"GET http://evil.example#@" + good + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                    400,
		"GET http://evil.example\\@" + good + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                   400,
		"GET http://127.1:" + port + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                            400,
		"GET http://2130706433/ HTTP/1.1\r\nHost: x\r\n\r\n":                                    400,
		"GET http://evil%2eexample:" + port + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                   400,
		"GET http://good.example/ HTTP/1.1\r\nHost: x\r\n\r\n":                                  403,
		"GET http://127.0.0.1:" + port + "/ HTTP/1.1\r\nHost: x\r\n\r\n":                        403,
		"GET http://" + good + "/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<17) + "": 431,
	} {
		if status, body := g.ask(g.dial(), text); status != want {
			t.Errorf("%.80q: %d %s, want %d", text, status, body, want)
		}
	}
}

// Two requests in one, told apart in two ways: what the server gets must be what
// was checked.
func TestSmuggling(t *testing.T) {
	var seen recorder
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen.add(r.URL.Path + " " + string(body))
	}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	g := open(t, "allow=127.0.0.1:"+port, loopback)
	good := "http://127.0.0.1:" + port
	inner := "GET " + good + "/inner HTTP/1.1\r\nHost: evil.example\r\n\r\n"
	for _, head := range []string{
		"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"Content-Length: %d\r\nContent-Length: 0\r\n\r\n",
		"Transfer-Encoding: chunked, identity\r\nContent-Length: %d\r\n\r\n",
		"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n\r\n",
		"Content-Length: +%d\r\n\r\n",
	} {
		conn := g.dial()
		fmt.Fprintf(conn, "POST "+good+"/outer HTTP/1.1\r\nHost: x\r\n"+head+"%s", len(inner), inner)
		conn.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, conn)
		requests := seen.take()
		for _, request := range requests {
			// Either the whole was one request, or two that were both checked.
			if strings.HasPrefix(request, "/outer ") && strings.Contains(request, "evil.example") && len(requests) > 1 {
				t.Errorf("%q: the server saw %q", head, requests)
			}
		}
	}
}

func TestSlowAndLeavingClients(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	to := silent.Addr().String()
	g := open(t, "allow="+to, func(p *Proxy) {
		loopback(p)
		p.limits = limits{connections: 2, header: 50 * time.Millisecond, dial: time.Second, idle: 50 * time.Millisecond, half: 20 * time.Millisecond}
	})
	// A head that does not end.
	conn := g.dial()
	io.WriteString(conn, "CONNECT "+to)
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a slow head: %v", err)
	}
	// A tunnel, and a plain request, without a byte.
	conn = g.connect(to)
	io.ReadAll(conn)
	if status, _ := g.ask(g.dial(), "GET http://"+to+"/ HTTP/1.1\r\nHost: x\r\n\r\n"); status != 504 && status != 502 {
		t.Errorf("a server that does not answer: %d", status)
	}
	eventually(t, "no connection is open", func() bool { return g.proxy.open.Load() == 0 })
	// A sandbox that asks for much, and takes none of it.
	much := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}))
	defer much.Close()
	greedy := open(t, "allow="+much.Listener.Addr().String(), func(p *Proxy) {
		loopback(p)
		p.limits.idle = 50 * time.Millisecond
	})
	io.WriteString(greedy.dial(), "GET "+much.URL+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "it has a connection", func() bool { return greedy.proxy.open.Load() == 1 })
	eventually(t, "and no more", func() bool { return greedy.proxy.open.Load() == 0 })
	// One that leaves, before and after.
	g.connect(to).Close()
	conn = g.dial()
	io.WriteString(conn, "CONNECT "+to+" HTTP/1.1\r\n")
	conn.Close()
	eventually(t, "no connection is open", func() bool { return g.proxy.open.Load() == 0 })
}

func TestConnectionsAreBounded(t *testing.T) {
	port := echo(t)
	g := open(t, "allow=127.0.0.1:"+port, func(p *Proxy) {
		loopback(p)
		p.limits.connections, p.most = 3, 2
	})
	one, _ := g.connect("127.0.0.1:"+port), g.connect("127.0.0.1:"+port)
	if status, body := g.ask(g.dial(), "CONNECT 127.0.0.1:"+port+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 503 || !strings.Contains(body, "too many") {
		t.Errorf("one connection to the world too many: %d %s", status, body)
	}
	third := g.dial() // takes the last slot, and says nothing yet
	fourth := g.dial()
	io.WriteString(fourth, "CONNECT nowhere:1 HTTP/1.1\r\nHost: x\r\n\r\n")
	one.Close()
	if status, _ := g.answer(bufio.NewReader(fourth)); status != 403 {
		t.Errorf("the one that waited: %d", status)
	}
	third.Close()
}

func TestCloseEndsEverything(t *testing.T) {
	port := echo(t)
	blackhole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer blackhole.Close()
	g := open(t, "allow=127.0.0.1:"+port+","+blackhole.Addr().String(), loopback)
	conn := g.connect("127.0.0.1:" + port)
	io.ReadFull(conn, make([]byte, len("hello ")))
	waiting := g.dial() // for an answer
	io.WriteString(waiting, "GET http://"+blackhole.Addr().String()+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := blackhole.Accept(); err != nil {
		t.Fatal(err)
	}
	idle := g.dial()
	g.Close()
	g.Close()
	for _, c := range []net.Conn{conn, waiting, idle} {
		if _, err := io.ReadAll(c); errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	eventually(t, "no connection is open", func() bool { return g.proxy.open.Load() == 0 })
	if _, err := net.Dial("unix", g.socket); err == nil {
		t.Error("it listens still")
	}
}

// Code that does not read why it was refused holds up the end of its sandbox no
// longer than other code.
func TestCloseEndsRefusals(t *testing.T) {
	theirs, ours := net.Pipe() // without a buffer that the refusal fits into
	defer theirs.Close()
	conns := make(chan net.Conn, 1)
	conns <- ours
	p := New(Config{MaxConnections: 10})
	p.limits.header = 10 * patience
	g := p.Open(&conveyor{conns: conns}, faas.Network{}, func(Outcome) {}, zerolog.Nop())
	if _, err := io.WriteString(theirs, "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(theirs, make([]byte, 1)); err != nil { // so it is being sent
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { g.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("it is not closed")
		theirs.Close()
		<-closed
	}
}

// A function may ask in a loop for what it does not get, and under any name.
func TestLogIsBounded(t *testing.T) {
	g := open(t, "allow=a", nil)
	if status, _ := g.ask(g.dial(), "CONNECT evil\x1b[31m.example:1 HTTP/1.1\r\nHost: x\r\n\r\n"); status != 400 {
		t.Errorf("a control character: %d", status)
	}
	conn := g.dial()
	in := bufio.NewReader(conn)
	for range 1000 {
		io.WriteString(conn, "GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
		g.answer(in)
	}
	if n := strings.Count(g.logged(), "\n"); n == 0 || n > 20 {
		t.Errorf("%d lines in the log", n)
	}
	if strings.ContainsAny(g.logged(), "\x1b\x00") {
		t.Error("control characters are in the log")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts[RefusedHost] < 1000 {
		t.Errorf("counted %v", g.counts)
	}
}
