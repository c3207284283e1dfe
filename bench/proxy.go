package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
)

// serveProxy is a baseline that anybody could write: httputil.ReverseProxy in front of
// a driver's socket, with a transport that keeps enough connections. It has no limits,
// metrics or headers of its own.
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
