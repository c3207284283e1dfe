// Package egress is the way out of sandboxes that have no network. Each has an HTTP
// proxy that reaches the hosts in the function's list, and that checks the address
// which it actually dials.
//
// The proxy supports CONNECT, whose bytes pass through untouched, and plain HTTP
// requests with an absolute URL. It goes by the host that the request line names, not
// by the name inside TLS or by a Host header.
package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

// Outcome is the result of a request to the proxy.
type Outcome string

// The outcomes, as they are counted.
const (
	Allowed        Outcome = "allowed"         // it was passed on
	RefusedHost    Outcome = "refused_host"    // its host is not listed
	RefusedAddress Outcome = "refused_address" // its host has an address that nobody may reach
	Failed         Outcome = "failed"          // it is malformed, or its host could not be reached
)

// Config is what the gates of a dispatcher share.
type Config struct {
	// Private are private address ranges that the operator allows. A cloud's metadata
	// address is allowed only by a range that is just that address.
	Private []netip.Prefix

	// MaxConnections bounds the connections that all gates together have to the world.
	MaxConnections int64
}

// Proxy makes the gates of one dispatcher's sandboxes.
type Proxy struct {
	rule     addressRule
	resolver *net.Resolver
	limits   limits
	most     int64        // connections to the world
	open     atomic.Int64 // how many there are
}

// limits bound what a sandbox can use.
type limits struct {
	connections int           // of a sandbox at a time; more wait
	header      time.Duration // for a request's head to arrive
	dial        time.Duration // to connect, name resolution included
	idle        time.Duration // how long a connection may pass no byte
	half        time.Duration // the same, once one side has ended
}

// maxHead bounds the head of a request or answer, in bytes.
const maxHead = 64 << 10

// New makes a Proxy.
func New(config Config) *Proxy {
	return &Proxy{
		rule:     addressRule{private: config.Private, own: ownAddresses},
		resolver: net.DefaultResolver,
		limits:   limits{connections: 100, header: 10 * time.Second, dial: 10 * time.Second, idle: 5 * time.Minute, half: time.Minute},
		most:     config.MaxConnections,
	}
}

// Gate is the proxy of one sandbox.
type Gate struct {
	proxy   *Proxy
	network faas.Network
	count   func(Outcome)
	log     zerolog.Logger
	server  *http.Server
	forward *httputil.ReverseProxy

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// Open serves a sandbox's connections until Close, to the hosts that network lists. It
// calls count for each request, and logs those that are refused.
func (p *Proxy) Open(listener net.Listener, network faas.Network, count func(Outcome), log zerolog.Logger) *Gate {
	g := &Gate{
		proxy: p, network: network, count: count,
		// A sandbox that is refused can ask again at once, ten thousand times a second.
		log: log.Sample(&zerolog.BurstSampler{Burst: 10, Period: 10 * time.Second}),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	quiet := stdlog.New(io.Discard, "", 0)
	g.forward = &httputil.ReverseProxy{
		Rewrite: g.rewrite,
		// A connection serves one request. None is kept, because another answer, or
		// another function's, could come on it.
		Transport: &http.Transport{
			DialContext:            func(_ context.Context, _, address string) (net.Conn, error) { return g.dialForward(address) },
			DisableKeepAlives:      true,
			DisableCompression:     true,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: maxHead,
		},
		FlushInterval:  -1,
		ErrorLog:       quiet,
		ModifyResponse: func(*http.Response) error { g.count(Allowed); return nil },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			g.fail(w, r, r.URL.Host, err)
		},
	}
	g.server = &http.Server{
		Handler:           g,
		ReadHeaderTimeout: p.limits.header,
		IdleTimeout:       p.limits.half,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          quiet,
		// Otherwise net/http would answer OPTIONS * itself.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return g.ctx },
	}
	g.work.Go(func() { g.server.Serve(newBounded(listener, p.limits.connections)) })
	return g
}

// Close closes the listener and all connections, and waits until nothing of the gate
// runs any more.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.server.Close()
	g.work.Wait()
}

// begin counts a request that Close has to wait for. It reports false if Close has
// begun.
func (g *Gate) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.work.Add(1)
	}
	return !g.closed
}

// target is the host and port to which a request goes.
type target struct {
	host string // as faas.ParseHost spells it
	port uint16
}

func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }

// parseTarget reads HOST:PORT. port is the default for HOST alone; with 0 a missing
// port is an error.
func parseTarget(text string, port uint16) (t target, err error) {
	t.port = port
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, ']') {
		if t.port, err = faas.ParsePort(text[i+1:]); err != nil {
			return t, err
		}
		text = text[:i]
	}
	if t.port == 0 {
		return t, errors.New("there is no port")
	}
	t.host, _, err = faas.ParseHost(text)
	return t, err
}

// ServeHTTP implements http.Handler. It serves one request of the sandbox.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.begin() {
		return
	}
	defer g.work.Done()
	authority, port := r.URL.Host, uint16(80)
	switch {
	case r.Method == http.MethodConnect:
		authority, port = r.RequestURI, 0 // as it was sent, not as it was parsed
	case r.URL.Scheme != "http" || r.URL.Host == "":
		g.malformed(w, r, "this is a proxy: ask for http://HOST/PATH, or for CONNECT HOST:PORT")
		return
	case r.URL.User != nil:
		g.malformed(w, r, "a user's name in the URL is not passed on; send it as Authorization")
		return
	}
	to, err := parseTarget(authority, port)
	if err != nil {
		g.malformed(w, r, fmt.Sprintf("%s is not a HOST:PORT to connect to: %v", strconv.QuoteToASCII(clip(authority)), err))
		return
	}
	if !g.network.Allows(to.host, to.port) {
		g.count(RefusedHost)
		g.log.Warn().Stringer("target", to).Msg("a function asked for a host that its network does not list")
		g.refuse(w, r, http.StatusForbidden, fmt.Sprintf("%v is not among the hosts that this function may reach; add it to its setting network=allow=HOST[:PORT],...", to))
		return
	}
	if r.Method == http.MethodConnect {
		g.tunnel(w, r, to)
		return
	}
	r.Header.Del("Upgrade") // other protocols have to use CONNECT
	r.URL.Host = to.String()
	g.forward.ServeHTTP(&patient{w, http.NewResponseController(w), g.proxy.limits.idle}, r)
}

// patient is the answer to a sandbox. It fails if the sandbox takes none of it for some
// time.
type patient struct {
	http.ResponseWriter
	client *http.ResponseController
	idle   time.Duration
}

// Write implements http.ResponseWriter.
func (w *patient) Write(p []byte) (int, error) {
	if err := w.client.SetWriteDeadline(time.Now().Add(w.idle)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *patient) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// rewrite turns a request to the proxy into one to its target. Hop-by-hop headers are
// gone already.
func (g *Gate) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it was sent
	r.Out.Host = strings.TrimSuffix(r.In.URL.Host, ":80")
}

// tunnel joins a connection of the sandbox with one to the target.
func (g *Gate) tunnel(w http.ResponseWriter, r *http.Request, to target) {
	remote, err := g.proxy.dial(r.Context(), to)
	if err != nil {
		g.fail(w, r, to.String(), err)
		return
	}
	defer remote.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		g.count(Failed)
		return
	}
	defer client.Close()
	stop := context.AfterFunc(g.ctx, func() { client.Close(); remote.Close() })
	defer stop()
	g.count(Allowed)
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err == nil {
		_, err = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	}
	if err == nil {
		_, err = remote.Write(early)
	}
	if err == nil {
		g.proxy.join(client, remote)
	}
}

// fail answers a request that could not be passed on.
func (g *Gate) fail(w http.ResponseWriter, r *http.Request, to string, err error) {
	if refused, ok := errors.AsType[*refusedAddress](err); ok {
		g.count(RefusedAddress)
		g.log.Warn().Str("target", to).Stringer("address", refused.addr).Str("is", refused.kind).Msg("a function asked for a host whose address is not to be reached")
		// Do not show the address: it would reveal the network here.
		g.refuse(w, r, http.StatusForbidden, to+" leads to an address that functions may not reach; the operator can allow a private one with FOB_PRIVATE_ADDRESSES")
		return
	}
	g.count(Failed)
	g.log.Debug().Err(err).Str("target", to).Msg("a function's request could not be passed on")
	why, status := "the connection failed", http.StatusBadGateway
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, errTooMany):
		why, status = "the dispatcher has too many connections open", http.StatusServiceUnavailable
	case isDNS && dns.IsNotFound:
		why = "there is no such host"
	case isDNS:
		why = "its name cannot be resolved now"
	case errors.Is(err, context.DeadlineExceeded):
		why, status = "it does not answer", http.StatusGatewayTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "it refuses the connection"
	}
	g.refuse(w, r, status, fmt.Sprintf("%s cannot be reached: %s", to, why))
}

func (g *Gate) malformed(w http.ResponseWriter, r *http.Request, why string) {
	g.count(Failed)
	g.refuse(w, r, http.StatusBadRequest, why)
}

// refuse answers with an error. text is one line of ASCII. Few clients show the body of
// such an answer to CONNECT, but most show its reason phrase.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	text = "fob: " + text
	if r.Method != http.MethodConnect {
		http.Error(w, text, status)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	stop := context.AfterFunc(g.ctx, func() { client.Close() })
	defer stop()
	client.SetDeadline(time.Now().Add(g.proxy.limits.header))
	fmt.Fprintf(client, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", status, text, len(text)+1, text)
}

// clip shortens a stranger's text for a message.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100]
	}
	return s
}
