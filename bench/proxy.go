package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"time"
)

// serveProxy is the baseline that anybody could write: httputil.ReverseProxy
// in front of a driver's socket, with a transport that keeps enough
// connections. It has no limits, metrics or headers of its own.
func serveProxy(socket, addr string) error {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Method = http.MethodPost
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path, r.Out.URL.RawQuery = "http", "driver", "/", ""
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
			MaxIdleConns:        256,
			MaxIdleConnsPerHost: 256,
			DisableCompression:  true,
			WriteBufferSize:     4 << 10,
			ReadBufferSize:      4 << 10,
		},
	}
	return http.ListenAndServe(addr, proxy)
}

// proxy is the baseline as a process of its own, as the dispatcher is.
type proxy struct {
	url string
	cmd *exec.Cmd
}

func startProxy(socket string) (*proxy, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &proxy{url: "http://" + addr, cmd: exec.Command(self, "-proxy", socket, "-addr", addr)}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return p, nil
		}
	}
	p.stop()
	return nil, fmt.Errorf("the proxy does not listen on %s", addr)
}

func (p *proxy) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// freeAddr is an address that nobody listened on just now.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
