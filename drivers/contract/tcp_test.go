package contract

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

var headerNames = map[string]string{
	"python": "def callme(request): return list(request.headers)",
	"node":   "function callme(request) { return Object.keys(request.headers); }",
}

func TestTCP(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang, "FOB_TOKEN=secret", "FOB_TCP=127.0.0.1:0")
		client := p.Client(t)
		load(t, client, headerNames[lang])
		port := client.health(t).Port
		if port == nil || *port == 0 {
			t.Fatal("health tells no port")
		}
		for _, c := range []struct {
			authorization string
			want          int
		}{{"", 401}, {"Bearer wrong", 401}, {"Bearer secre", 401}, {"Bearer secret!", 401}, {"secret", 401}, {"Bearer secret", 200}} {
			request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/", *port), bytes.NewReader(nil))
			if err != nil {
				t.Fatal(err)
			}
			request.Close = true
			if c.authorization != "" {
				request.Header.Set("Authorization", c.authorization)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != c.want {
				t.Errorf("%q answered %d, want %d (%v)", c.authorization, response.StatusCode, c.want, err)
			}
			if c.want == 200 && (strings.Contains(string(body), "authorization") || !strings.Contains(string(body), "user-agent")) {
				t.Errorf("the function sees the headers %s, want them without the token", body)
			}
		}
	})
}

func TestTCPAlone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free now
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	each(t, func(t *testing.T, lang string) {
		p := start(t, lang, nil, "FOB_SOCKET=", "FOB_TOKEN=secret", "FOB_TCP="+address)
		Eventually(t, "health answers", func() bool {
			request := newRequest(t, http.MethodGet, "/_fob/health", "")
			request.URL.Host = address
			request.Header.Set("Authorization", "Bearer secret")
			request.Close = true
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return false
			}
			_ = response.Body.Close()
			return response.StatusCode == 200
		})
		if exists(p.socket) {
			t.Error("there is a socket, too")
		}
	})
}
