package httpapi

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// acceptedCodings are the content codings that a request's body may have (RFC 9110,
// 8.4).
const acceptedCodings = "gzip, deflate"

// decode replaces a compressed body by one that decompresses it while it is read. It
// reads nothing itself. Limits apply to the decompressed bytes, so a zip bomb is cut off
// as soon as too much comes out.
func decode(r *http.Request) error {
	given, compressed := r.Header["Content-Encoding"]
	if !compressed {
		return nil
	}
	coding := strings.ToLower(strings.TrimSpace(strings.Join(given, ", ")))
	var open func(io.Reader) (io.Reader, error)
	switch coding {
	case "gzip", "x-gzip":
		open = func(from io.Reader) (io.Reader, error) { return gzip.NewReader(from) }
	case "deflate":
		open = func(from io.Reader) (io.Reader, error) { return zlib.NewReader(from) }
	case "", "identity":
	default:
		return faas.Errorf(faas.CodeUnknownCoding, "the body's Content-Encoding is %.80q; use %s, or none", coding, acceptedCodings)
	}
	if open != nil && r.ContentLength != 0 {
		r.Body = &decoded{raw: r.Body, open: open, coding: coding}
		r.ContentLength = -1
	}
	return nil
}

// decoded is a body that is decompressed as it is read.
type decoded struct {
	raw    io.ReadCloser
	in     *bufio.Reader // reads raw; nil before the first Read
	open   func(io.Reader) (io.Reader, error)
	from   io.Reader
	coding string
	broken error // error of raw
	ended  error // what Read ended with
}

// Read implements io.Reader. After an error it keeps returning that error.
func (d *decoded) Read(p []byte) (n int, err error) {
	if d.ended == nil {
		n, d.ended = d.read(p)
	}
	return n, d.ended
}

func (d *decoded) read(p []byte) (n int, err error) {
	if d.in == nil {
		d.in = bufio.NewReader(source{d})
		d.from, err = d.open(d.in)
	}
	if err == nil {
		n, err = d.from.Read(p)
	}
	if err == io.EOF {
		// raw must end here: there must be no bytes left, and its end must have been
		// seen.
		if _, more := d.in.ReadByte(); more == nil {
			err = errors.New("something follows its end")
		} else {
			err = more
		}
	}
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case d.broken != nil:
		return n, d.broken
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, faas.Errorf(faas.CodeBadRequest, "the body ends in the middle of its Content-Encoding %s", d.coding)
	}
	return n, faas.Errorf(faas.CodeBadRequest, "the body is not what its Content-Encoding says, %s: %v", d.coding, err)
}

// Close implements io.Closer.
func (d *decoded) Close() error { return d.raw.Close() }

// source is what a decoded body is read from. It remembers the error of raw.
type source struct{ *decoded }

// Read implements io.Reader.
func (s source) Read(p []byte) (int, error) {
	n, err := s.raw.Read(p)
	if err != nil && err != io.EOF {
		s.broken = err
	}
	return n, err
}
