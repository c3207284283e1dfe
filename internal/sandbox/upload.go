package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
)

// uploadBuffer is how much of a streamed body is on its way at a time, in bytes.
const uploadBuffer = 32 << 10

// upload sends the body of a call in chunks, while the answer is being read.
type upload struct {
	nc       net.Conn
	from     io.ReadCloser
	over     chan struct{} // closed when it sends no more
	stopping atomic.Bool

	// Written before over is closed.
	sent bool  // all of it
	err  error // of from
}

// startUpload sends a body that begins with some bytes, and goes on with what
// comes from a reader.
func startUpload(nc net.Conn, begin []byte, from io.ReadCloser) *upload {
	u := &upload{nc: nc, from: from, over: make(chan struct{})}
	go u.run(begin)
	return u
}

func (u *upload) run(begin []byte) {
	defer close(u.over)
	if len(begin) > 0 {
		size := strconv.AppendInt(nil, int64(len(begin)), 16)
		parts := net.Buffers{append(size, "\r\n"...), begin, []byte("\r\n")}
		if _, err := parts.WriteTo(u.nc); err != nil {
			u.from.Close()
			return // reading the answer says why
		}
	}
	// A chunk goes out in one piece: its size is put in front of what was read.
	const front = 10
	buffer := make([]byte, front+uploadBuffer+2)
	for {
		n, err := u.from.Read(buffer[front : front+uploadBuffer])
		if n > 0 {
			var room [front]byte
			size := append(strconv.AppendInt(room[:0], int64(n), 16), "\r\n"...)
			begin := front - len(size)
			copy(buffer[begin:], size)
			chunk := append(buffer[begin:front+n], "\r\n"...)
			if _, err := u.nc.Write(chunk); err != nil {
				u.from.Close()
				return
			}
		}
		switch {
		case err == io.EOF:
			_, err := io.WriteString(u.nc, "0\r\n\r\n")
			u.sent = err == nil
			return
		case err != nil:
			// What the driver got must not look whole to it.
			if !u.stopping.Load() {
				u.err = err
			}
			shutDown(u.nc)
			return
		}
	}
}

// stop ends the sending, and returns when it has ended. The connection cannot be
// used for another call unless all was sent.
func (u *upload) stop() {
	select {
	case <-u.over:
	default:
		if u.stopping.CompareAndSwap(false, true) {
			u.from.Close()
			u.nc.SetWriteDeadline(past)
		}
		<-u.over
	}
}

// failed stops the sending, and says whether the body broke off before that.
func (u *upload) failed() error {
	u.stop()
	if u.err != nil {
		return fmt.Errorf("%w: %w", ErrBody, u.err)
	}
	return nil
}

// ErrBody is wrapped by errors of calls whose Stream failed, together with what
// it failed with.
var ErrBody = errors.New("the body of the call broke off")
