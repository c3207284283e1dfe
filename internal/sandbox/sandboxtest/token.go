package sandboxtest

import (
	"net"
	"net/http"
	"strings"
)

// Answering is a connection of a driver that a test makes up, for its answer to a
// request: a Write that begins one brings the request's token back.
func Answering(nc net.Conn, r *http.Request) *Answerer {
	return &Answerer{nc, r.Header.Get("Fob-Call")}
}

// Answerer is what Answering makes. Conn is the connection as it is.
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

// WithToken puts a token behind the first line of what begins an answer.
func WithToken(answer, token string) string {
	line, rest, found := strings.Cut(answer, "\n")
	if !found || !strings.HasPrefix(line, "HTTP/") {
		return answer
	}
	return line + "\nFob-Call: " + token + "\r\n" + rest
}
