package sandbox

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"syscall"
)

// Contract is the version of the driver contract that a Conn speaks.
const Contract = 2

// A token is sent with a request, and the answer brings it back, so that no other
// answer is ever taken for it. A function may fork, and then two processes hold the
// same connections. A token is 16 hexadecimal digits that nobody can guess before the
// request is sent.
type token [16]byte

// tokenField is the first field of every request and answer. Since its place is fixed,
// one comparison checks it.
const tokenField = "Fob-Call: "

// errStray is wrapped by errors that say that what came is not the answer to what was
// sent.
var errStray = fmt.Errorf("%w: what came is not the answer to this call; a process that the function started may have sent it", ErrBadAnswer)

func newToken(n uint64) (t token) {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], n)
	hex.Encode(t[:], raw[:])
	return t
}

// isIn reports whether the first header line of an answer brings the token back.
func (t *token) isIn(line []byte) bool {
	return len(line) == len(tokenField)+len(t) && string(line[:len(tokenField)]) == tokenField && string(line[len(tokenField):]) == string(t[:])
}

// appendTo appends the token as a header line of a request.
func (t *token) appendTo(b []byte) []byte {
	b = append(b, tokenField...)
	b = append(b, t[:]...)
	return append(b, "\r\n"...)
}

// glance looks at an idle connection without blocking. The zero glance is for a
// connection without a descriptor, and sees nothing.
type glance struct {
	raw  syscall.RawConn
	look func(fd uintptr)

	n   int
	err error
	buf [1]byte
}

// watch sets the connection to look at.
func (g *glance) watch(nc any) {
	conn, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	g.raw = raw
	g.look = func(fd uintptr) { g.n, g.err = syscall.Read(int(fd), g.buf[:]) } // descriptors of package net do not block
}

// idle reports whether the connection is as it was left: nothing has come, and the
// driver has not closed it. stray reports whether bytes have come, which nobody asked
// for.
func (g *glance) idle() (idle, stray bool) {
	if g.raw == nil {
		return true, false
	}
	// Control, because Read would obey the last call's deadline.
	if err := g.raw.Control(g.look); err != nil {
		return false, false
	}
	return g.err == syscall.EAGAIN || g.err == syscall.EINTR, g.n > 0
}
