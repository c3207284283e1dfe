package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// limits are what the driver contract allows the members of an error, in bytes.
var limits = map[string]int{"code": 64, "type": 256, "message": 8 << 10, "traceback": 64 << 10}

// TestDriverErrorsAreClipped has code that writes to the socket itself make its
// errors as long as it can: they are the same for a call, a load and a question.
func TestDriverErrorsAreClipped(t *testing.T) {
	for what, piece := range map[string]string{
		"bytes that are no UTF-8": "\xff",
		"control characters":      `\u0001`,
		"characters of two bytes": "é",
		"of four bytes":           "😀",
		"halves of surrogates":    `\ud800`,
	} {
		text := strings.Repeat(piece, 120<<10/len(piece))
		decoded := 0
		for member, limit := range limits {
			members := map[string]string{"code": "raised", member: "%s"}
			document, _ := json.Marshal(map[string]any{"error": members})
			long := strings.Replace(string(document), "%s", text, 1)
			c, _ := connect(t, raw(answer(500, "Fob-Error: raised\r\n", long)))
			_, called := c.Call(soon(), &sandbox.Request{})
			_, loaded := c.Load(t.Context(), sandbox.Load{Code: "x"})
			_, asked := c.Health(t.Context())
			for _, err := range []error{called, loaded, asked} {
				e, is := errors.AsType[*sandbox.DriverError](err)
				if !is {
					t.Fatalf("%s: got %v", what, err)
				}
				said := map[string]string{"code": e.Code, "type": e.Type, "message": e.Message, "traceback": e.Traceback}[member]
				decoded = max(decoded, len(said))
				cut := strings.HasSuffix(said, "…") && len(said) >= limit-8
				if len(said) > limit || !utf8.ValidString(said) || !cut && len(said) >= limit {
					t.Errorf("%s: the %s has %d bytes, and %d are allowed", what, member, len(said), limit)
				}
			}
		}
		if decoded < 20_000 {
			t.Errorf("%s: no member has more than %d bytes", what, decoded)
		}
	}
}

// TestDriverErrorsAreBounded has the document itself be too long: it is not read.
func TestDriverErrorsAreBounded(t *testing.T) {
	const most = 128 << 10
	document := func(length int) string {
		const begin, end = `{"error": {"code": "raised", "message": "`, `"}}`
		return begin + strings.Repeat("x", length-len(begin)-len(end)) + end
	}
	for length, fine := range map[int]bool{most: true, most + 1: false, 900 << 10: false} {
		text := document(length)
		for _, whole := range []string{
			answer(500, "Fob-Error: raised\r\n", text),
			"HTTP/1.1 500 X\r\nFob-Error: raised\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text),
		} {
			c, _ := connect(t, raw(whole))
			_, err := c.Call(soon(), &sandbox.Request{})
			if _, is := errors.AsType[*sandbox.DriverError](err); is != fine || !fine && !errors.Is(err, sandbox.ErrBadAnswer) {
				t.Errorf("%d bytes: a call: %v", length, err)
			}
			_, err = c.Load(t.Context(), sandbox.Load{Code: "x"})
			if _, is := errors.AsType[*sandbox.DriverError](err); is != fine || !fine && !errors.Is(err, sandbox.ErrBadAnswer) {
				t.Errorf("%d bytes: a load: %v", length, err)
			}
		}
	}
	// What a driver says of itself is as short.
	long := `{"state": "loaded", "runtime": "` + strings.Repeat("x", most) + `"}`
	c, _ := connect(t, raw(answer(200, "", long)))
	if h, err := c.Health(t.Context()); !errors.Is(err, sandbox.ErrBadAnswer) {
		t.Errorf("a health document of %d bytes: %v, %v", len(long), h, err)
	}
}

// TestHeadsAreBounded sends as many fields as there may be, and one more.
func TestHeadsAreBounded(t *testing.T) {
	fields := func(n int) string {
		var text strings.Builder
		for i := range n - 1 { // beside the Content-Length
			fmt.Fprintf(&text, "X-%d: a\r\n", i)
		}
		return text.String()
	}
	for n, fine := range map[int]bool{100: true, 101: false, 6500: false} {
		c, _ := connect(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
			nc.Write([]byte("HTTP/1.1 200 OK\r\n" + fields(n) + "Content-Length: 0\r\n\r\n"))
			return true
		})
		r, err := c.Call(soon(), &sandbox.Request{})
		if fine && (err != nil || len(r.Header) != n-1) || !fine && !errors.Is(err, sandbox.ErrBadAnswer) {
			t.Errorf("%d fields: %v", n, err)
		}
	}
}
