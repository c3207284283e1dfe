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

// uploadBuffer is how many bytes of a streamed body are on their way at a time. If
// there is no room for that, it is smallUpload.
const (
	uploadBuffer = 32 << 10
	smallUpload  = 4 << 10
)

// upload sends the body of a call in chunks while the answer is read.
type upload struct {
	nc       net.Conn
	buffers  *buffer.Budget
	drop     func() // gives back the beginning; may be nil
	from     io.ReadCloser
	over     chan struct{} // closed when it stops sending
	stopping atomic.Bool

	// Set before over is closed.
	sent bool  // all of it
	err  error // of reading from
}

// startUpload starts to send a body that streams: the call's Body, then what its Stream
// gives.
func startUpload(nc net.Conn, call *Request, buffers *buffer.Budget) *upload {
	u := &upload{nc: nc, buffers: buffers, drop: call.Drop, from: call.Stream, over: make(chan struct{})}
	go u.run(call.Body)
	return u
}

func (u *upload) run(begin []byte) {
	defer close(u.over)
	if err := u.sendBeginning(begin); err != nil {
		u.from.Close()
		return // reading the answer will tell why
	}
	// A chunk goes out in one write: there is room for its size in front of its data.
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
			// The driver must not take what it got for a whole body.
			if !u.stopping.Load() {
				u.err = err
			}
			shutDown(u.nc)
			return
		}
	}
}

// sendBeginning sends the part of the body that is held, and then releases it.
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

// stop ends the sending, and returns when it has ended. If not everything was sent, the
// connection cannot be used for another call.
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

// failed stops the sending, and returns the error of a body that broke off before.
func (u *upload) failed() error {
	u.stop()
	if u.err != nil {
		return fmt.Errorf("%w: %w", ErrBody, u.err)
	}
	return nil
}

// ErrBody is wrapped by the error of a call whose Stream failed. The error wraps the
// Stream's error, too.
var ErrBody = errors.New("the body of the call broke off")
