package sandbox

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Request is one call, as the driver gets it.
type Request struct {
	ID   string // of the call, which its lines in the log bear: at most 64 bytes
	Args []byte // Fob-Args, or empty
	Body []byte
	Form string // Content-Type of a Body that is a form, if the function does not take the request; or empty

	// Drop, if set, is called when Body has been sent or cannot be sent. If nothing of
	// the call was sent, it is not called.
	Drop func()

	// Stream, if set, follows Body and makes the body one that streams. It is read at
	// the same time as the answer, at most until the answer ends, and is then closed,
	// perhaps twice. Close must end a Read that waits. If nothing of the call was sent,
	// Stream is left as it was.
	Stream io.ReadCloser

	// For a function that takes the request. For others Method is empty.
	Method string
	Target string
	Root   string // the beginning of Target that names the function; may be empty
	Host   string
	Header http.Header

	// These replace those in Header. Without a TraceParent those in Header are sent.
	TraceParent string
	TraceState  string
}

// The headers with a call's place in its trace (W3C Trace Context).
const (
	traceParent = "Traceparent"
	traceState  = "Tracestate"
)

// appendHead appends the request's head.
func (r *Request) appendHead(b []byte, t *token) []byte {
	b = append(b, "POST / HTTP/1.1\r\n"...)
	b = t.appendTo(b)
	if r.ID != "" {
		b = appendField(b, "Fob-Call-Id", r.ID)
	}
	host := "fob"
	if r.Method != "" {
		host = r.Host
		b = appendField(b, "Fob-Method", r.Method)
		b = appendField(b, "Fob-Target", r.Target)
		if r.Root != "" {
			b = appendField(b, "Fob-Root", r.Root)
		}
		hops := strings.Join(r.Header["Connection"], ",")
		for name, values := range r.Header {
			if name == "Host" || r.TraceParent != "" && (name == traceParent || name == traceState) || !EndToEnd(name) || hops != "" && namedIn(hops, name) {
				continue
			}
			for _, value := range values {
				b = appendField(b, name, value)
			}
		}
		if r.TraceParent != "" {
			b = appendField(b, traceParent, r.TraceParent)
			if r.TraceState != "" {
				b = appendField(b, traceState, r.TraceState)
			}
		}
	}
	b = appendField(b, "Host", host)
	if r.Form != "" {
		b = appendField(b, "Fob-Content-Type", r.Form)
	}
	if len(r.Args) > 0 {
		b = append(b, "Fob-Args: "...)
		b = append(b, r.Args...)
		b = append(b, "\r\n"...)
	}
	if r.Stream != nil {
		return append(b, "Fob-Stream: request\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.Body)), 10)
	return append(b, "\r\n\r\n"...)
}

// namedIn reports whether a Connection header names a field as hop-by-hop.
func namedIn(connection, name string) bool {
	for option := range strings.SplitSeq(connection, ",") {
		if strings.EqualFold(strings.TrimSpace(option), name) {
			return true
		}
	}
	return false
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}
