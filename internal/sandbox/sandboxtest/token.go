package sandboxtest

import (
	"net"
	"net/http"
	"strings"
)

// Answering returns a connection for a test's own driver to answer a request on: a
// Write that begins an answer adds the request's token to it.
func Answering(nc net.Conn, r *http.Request) *Answerer {
	return &Answerer{nc, r.Header.Get("Fob-Call")}
}

// Answerer is the connection that Answering returns. Conn is the one beneath it.
type Answerer struct {
	net.Conn
	token string
}

// Write implements io.Writer.
func (a *Answerer) Write(p []byte) (int, error) {
	if _, err := a.Conn.Write([]byte(WithToken(string(p), a.token))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WithToken adds a token behind the first line of an answer.
func WithToken(answer, token string) string {
	line, rest, found := strings.Cut(answer, "\n")
	if !found || !strings.HasPrefix(line, "HTTP/") {
		return answer
	}
	return line + "\nFob-Call: " + token + "\r\n" + rest
}
