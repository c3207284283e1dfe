package egress

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/faas"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// gate is a sandbox's proxy under test, and what it counted and logged.
type gate struct {
	*Gate
	t      *testing.T
	socket string

	mu     sync.Mutex
	counts map[Outcome]int
	log    bytes.Buffer
}

// open opens a gate for a network, whose Proxy is changed before. Nothing of it
// may be left at the end.
func open(t *testing.T, network string, change func(*Proxy)) *gate {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		// A connection with too long a head lingers for half a second.
		goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
	})
	list, err := faas.ParseNetwork(network)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Config{MaxConnections: 1000})
	p.rule.own = func() ([]netip.Addr, error) { return nil, nil }
	if change != nil {
		change(p)
	}
	dir, err := os.MkdirTemp("/tmp", "fob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &gate{t: t, socket: filepath.Join(dir, "s"), counts: map[Outcome]int{}}
	listener, err := net.Listen("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	g.Gate = p.Open(listener, list, g.note, zerolog.New(g))
	t.Cleanup(g.Close)
	return g
}

func (g *gate) note(outcome Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[outcome]++
}

// Write takes what is logged.
func (g *gate) Write(line []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(line)
}

func (g *gate) logged() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// wants waits until just these outcomes were counted.
func (g *gate) wants(want map[Outcome]int) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("counted %v", want), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return maps.Equal(g.counts, want)
	})
}

// dial connects to the gate, as a sandbox does.
func (g *gate) dial() net.Conn {
	g.t.Helper()
	conn, err := net.Dial("unix", g.socket)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// client is an HTTP client that has the gate for a proxy, as curl would.
func (g *gate) client() *http.Client {
	transport := &http.Transport{
		Proxy: func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "proxy.invalid"}, nil },
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.socket)
		},
	}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// ask sends text and reads one answer.
func (g *gate) ask(conn net.Conn, text string) (status int, body string) {
	g.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		g.t.Fatal(err)
	}
	return g.answer(bufio.NewReader(conn))
}

func (g *gate) answer(in *bufio.Reader) (status int, body string) {
	g.t.Helper()
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode == 200 && response.ContentLength < 0 && response.TransferEncoding == nil { // a tunnel
		return 200, ""
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// connect asks for a tunnel and returns it.
func (g *gate) connect(to string) net.Conn {
	g.t.Helper()
	conn := g.dial()
	const want = "HTTP/1.1 200 Connection established\r\n\r\n"
	got := make([]byte, len(want))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		g.t.Fatalf("CONNECT %s: %q, %v", to, got[:n], err)
	}
	return conn
}

// loopback lets the test's own servers be reached, at 127.0.0.1 alone.
func loopback(p *Proxy) { p.rule.private = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }

// names has a Proxy ask a DNS server of the test's own, which answers the nth
// question for the address of a name with the nth of its addresses, and then
// with the last one again.
func names(t *testing.T, table map[string][]string) func(*Proxy) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		asked := map[string]int{}
		packet := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(packet)
			if err != nil {
				return
			}
			name, kind, end := question(packet[:n])
			reply := append([]byte{packet[0], packet[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, packet[12:end]...)
			addresses, known := table[name]
			switch {
			case !known:
				reply[3] |= 3 // no such name
			case kind == 1: // A
				ip := netip.MustParseAddr(addresses[min(asked[name], len(addresses)-1)]).As4()
				asked[name]++
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, ip[:]...)
			}
			server.WriteTo(reply, from)
		}
	}()
	return func(p *Proxy) {
		p.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
		}}
	}
}

// question reads the one of a DNS packet, and where it ends.
func question(packet []byte) (name string, kind uint16, end int) {
	var labels []string
	at := 12
	for packet[at] != 0 {
		length := int(packet[at])
		labels = append(labels, string(packet[at+1:at+1+length]))
		at += 1 + length
	}
	return strings.ToLower(strings.Join(labels, ".")), binary.BigEndian.Uint16(packet[at+1:]), at + 5
}

// recorder keeps what a server saw.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// conveyor is a listener whose connections come from a channel.
type conveyor struct {
	conns chan net.Conn
	once  sync.Once
}

func (c *conveyor) Accept() (net.Conn, error) {
	if conn, ok := <-c.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (c *conveyor) Close() error {
	c.once.Do(func() { close(c.conns) })
	return nil
}

func (c *conveyor) Addr() net.Addr { return &net.UnixAddr{Name: "conveyor", Net: "unix"} }
