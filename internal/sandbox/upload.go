package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/flockofbirds/fob/internal/buffer"
)

// uploadBuffer is how much of a streamed body is on its way at a time, in bytes,
// and smallUpload when there is no room for that.
const (
	uploadBuffer = 32 << 10
	smallUpload  = 4 << 10
)

// upload sends the body of a call in chunks, while the answer is being read.
type upload struct {
	nc       net.Conn
	buffers  *buffer.Budget
	drop     func() // of the beginning; may be nil
	from     io.ReadCloser
	over     chan struct{} // closed when it sends no more
	stopping atomic.Bool

	// Written before over is closed.
	sent bool  // all of it
	err  error // of from
}

// startUpload sends a body that streams: the call's Body, and then what comes
// from its Stream.
func startUpload(nc net.Conn, call *Request, buffers *buffer.Budget) *upload {
	u := &upload{nc: nc, buffers: buffers, drop: call.Drop, from: call.Stream, over: make(chan struct{})}
	go u.run(call.Body)
	return u
}

func (u *upload) run(begin []byte) {
	defer close(u.over)
	if err := u.sendBeginning(begin); err != nil {
		u.from.Close()
		return // reading the answer says why
	}
	// A chunk goes out in one piece: its size is put in front of what was read.
	const front = 10
	most := smallUpload
	if u.buffers.Take(uploadBuffer, buffer.Request) {
		most = uploadBuffer
		defer u.buffers.Give(uploadBuffer)
	}
	room := make([]byte, front+most+2)
	for pace := (buffer.Pace{}); ; {
		n, err := u.from.Read(room[front : front+most])
		if n > 0 {
			var digits [front]byte
			size := append(strconv.AppendInt(digits[:0], int64(n), 16), "\r\n"...)
			begin := front - len(size)
			copy(room[begin:], size)
			chunk := append(room[begin:front+n], "\r\n"...)
			if _, err := u.nc.Write(chunk); err != nil {
				u.from.Close()
				return
			}
			if err == nil {
				pace.Passed(n)
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

// sendBeginning sends what of the body is held, and then holds it no more.
func (u *upload) sendBeginning(begin []byte) error {
	if u.drop != nil {
		defer u.drop()
	}
	if len(begin) == 0 {
		return nil
	}
	size := strconv.AppendInt(nil, int64(len(begin)), 16)
	parts := net.Buffers{append(size, "\r\n"...), begin, []byte("\r\n")}
	_, err := parts.WriteTo(u.nc)
	return err
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
