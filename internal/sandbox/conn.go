package sandbox

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
)

// Conn is the client of one sandbox's driver. It speaks HTTP/1.1 as the driver contract
// (drivers/contract/README.md) says, over connections that are kept open. It is our own
// client because it is on the path of every call, where net/http would cost more than
// calling an empty function.
type Conn struct {
	dial      func(ctx context.Context) (net.Conn, error)
	maxAnswer int64
	buffers   *buffer.Budget // for what is held of answers; nil for no bound

	// OnStray, if it is set before the first request, is called each time that a
	// connection is closed because something other than the expected answer came on it.
	OnStray func()

	mu     sync.Mutex
	tokens *rand.ChaCha8
	idle   []*wire
	closed bool
}

// dialTimeout bounds connecting to a socket on this machine. A connection that takes
// longer meets a full backlog, so its driver is as good as dead.
const dialTimeout = 5 * time.Second

// NewConn returns a Conn to inst's driver. It refuses answers of more than maxAnswer
// bytes, and takes the memory for answers from buffers.
func NewConn(inst Instance, maxAnswer int64, buffers *buffer.Budget) *Conn {
	var seed [32]byte
	crand.Read(seed[:])
	return &Conn{dial: inst.Dial, maxAnswer: maxAnswer, buffers: buffers, tokens: rand.NewChaCha8(seed)}
}

// Health is the driver's account of itself.
type Health struct {
	State        string `json:"state"` // "blank", "loading" or "loaded"
	Lang         string `json:"lang"`
	Runtime      string `json:"runtime"`
	Contract     int    `json:"contract"`
	InFlight     int    `json:"in_flight"`
	Function     string `json:"function"`
	Version      int    `json:"version"`
	TakesRequest bool   `json:"takes_request"`
	Port         int    `json:"port"`
}

// Load is what a driver loads, once in its life.
type Load struct {
	Code        string `json:"code"`
	Function    string `json:"function"`
	Version     int    `json:"version"`
	Concurrency int    `json:"concurrency"`
	MaxBody     int64  `json:"max_body,omitempty"` // bytes of a body that is not streamed
	Proxy       string `json:"proxy,omitempty"`    // file name of the proxy's socket; empty if there is no proxy

	Log string `json:"log,omitempty"` // file name of the log's socket; empty if there is none

	Env     map[string]string `json:"env,omitempty"`     // plain variables
	Secrets Values            `json:"secrets,omitempty"` // variables and files
}

// Values are secrets by name. They may be any bytes, so JSON has them in base64.
type Values map[string][]byte

// Wipe overwrites the values.
func (v Values) Wipe() {
	for _, value := range v {
		clear(value)
	}
}

// Format implements fmt.Formatter, so that no message ever shows the values.
func (v Values) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%d secrets", len(v)) }

// Response is a driver's answer. Header has no hop-by-hop fields, and is nil if there
// are no fields but ContentType. A body that is read whole is in Body until Close.
// Otherwise it comes from Stream, which may be closed instead.
type Response struct {
	Status      int
	ContentType string
	Header      http.Header
	Body        []byte
	Stream      *Stream
	Usage       Usage // unless Stream tells it at its end

	room room
}

// Close gives back the memory of an answer. It ends one that streams.
func (r *Response) Close() {
	if r.Stream != nil {
		r.Stream.Close()
	}
	r.Body = nil
	r.room.close()
}

// ErrNotSent is wrapped by the error of a call of which no byte was sent. Such a call
// can be made again elsewhere.
var ErrNotSent = errors.New("nothing was sent")

// ErrBadAnswer is wrapped by errors that say that the driver's answer was malformed or
// too large.
var ErrBadAnswer = errors.New("bad answer from the driver")

// Health asks the driver for its Health.
func (c *Conn) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.control(ctx, "GET /_fob/health HTTP/1.1\r\n", "Host: fob\r\n\r\n", nil, &h)
	return h, err
}

// Load has the driver load code, and returns when it is loaded. A *DriverError says
// what is wrong with the code.
func (c *Conn) Load(ctx context.Context, load Load) (Health, error) {
	body, err := json.Marshal(load)
	if err != nil {
		return Health{}, err
	}
	defer clear(body) // it may contain secrets
	fields := fmt.Sprintf("Host: fob\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	var h Health
	err = c.control(ctx, "PUT /_fob/function HTTP/1.1\r\n", fields, body, &h)
	return h, err
}

// control makes a request that is not a call. The end of ctx interrupts it.
func (c *Conn) control(ctx context.Context, line, fields string, body []byte, into any) error {
	w, err := c.get(ctx)
	if err != nil {
		return err
	}
	w.nc.SetDeadline(time.Time{}) // an idle connection still has the deadline of its last call
	stop := context.AfterFunc(ctx, func() { w.nc.SetDeadline(past) })
	var response *Response
	message := slices.Concat(w.token.appendTo([]byte(line)), []byte(fields), body)
	err = w.send(message, nil)
	clear(message)
	if err == nil {
		if response, err = w.receive(maxDocument); response != nil {
			defer response.Close()
		}
	}
	if err == nil {
		err = w.whole(response, maxDocument)
	}
	if !stop() || err != nil {
		c.drop(w, err)
	} else {
		c.put(w)
	}
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(response.Body, into); err != nil {
		return fmt.Errorf("%w: %v", ErrBadAnswer, err)
	}
	return nil
}

// Call makes one call. At the deadline it fails with os.ErrDeadlineExceeded. Nothing
// else ends it early but the sandbox's death: a caller that goes away does not undo a
// call that was sent. An answer that streams goes on after Call has returned, until the
// same deadline.
func (c *Conn) Call(deadline time.Time, r *Request) (*Response, error) {
	w, up, err := c.begin(deadline, r)
	if err != nil {
		return nil, err
	}
	return c.answer(w, up)
}

// Begin sends a call and leaves its answer to somebody else, who may wait longer. A
// call that is not sent by the deadline fails with os.ErrDeadlineExceeded; the driver
// then never gets the whole request.
func (c *Conn) Begin(deadline time.Time, r *Request) (*Pending, error) {
	w, up, err := c.begin(deadline, r)
	if err != nil {
		return nil, err
	}
	return &Pending{c, w, up}, nil
}

// Pending is a call that was sent.
type Pending struct {
	c  *Conn
	w  *wire
	up *upload
}

// SetDeadline sets the deadline for the answer and for sending the rest of the body. It
// must not be called after EndBody.
func (p *Pending) SetDeadline(t time.Time) { p.w.nc.SetDeadline(t) }

// Answer returns the answer as Call does. It fails at the deadline.
func (p *Pending) Answer() (*Response, error) { return p.c.answer(p.w, p.up) }

// EndBody stops sending a body that streams, and returns when the body is no longer
// read. The driver sees the body break off.
func (p *Pending) EndBody() {
	if p.up != nil {
		p.up.stop()
	}
}

// Break makes a waiting Answer fail.
func (p *Pending) Break() { p.w.nc.Close() }

// begin sends a call.
func (c *Conn) begin(deadline time.Time, r *Request) (*wire, *upload, error) {
	w, err := c.get(context.Background())
	if err != nil {
		return nil, nil, err
	}
	if err := w.nc.SetDeadline(deadline); err != nil {
		w.nc.Close()
		return nil, nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	body := r.Body
	if r.Stream != nil {
		body = nil
	}
	if err := w.send(r.appendHead(w.out[:0], &w.token), body); err != nil {
		w.nc.Close()
		return nil, nil, err
	}
	if r.Stream != nil {
		return w, startUpload(w.nc, r, c.buffers), nil
	}
	if r.Drop != nil {
		r.Body = nil
		r.Drop()
	}
	return w, nil, nil
}

// answer reads the answer to a call that was sent.
func (c *Conn) answer(w *wire, up *upload) (*Response, error) {
	response, err := w.receive(c.maxAnswer)
	if err == nil && response.Stream != nil {
		response.Stream.conn, response.Stream.up = c, up
		response.Stream.room, response.room = response.room, room{}
		return response, nil
	}
	if err = c.done(w, up, err); err != nil {
		if response != nil {
			response.Close()
		}
		return nil, err
	}
	return response, nil
}

// done releases a call's connection when its answer has ended or cannot be read. It
// returns the call's outcome: the error of the body if the body broke off, otherwise
// err, which is nil or io.EOF if the answer was whole.
func (c *Conn) done(w *wire, up *upload, err error) error {
	whole := err == nil || err == io.EOF
	if !whole {
		_, whole = errors.AsType[*DriverError](err)
	}
	if up != nil {
		broken := up.failed()
		w.spent = w.spent || !up.sent
		if whole && broken != nil {
			err = broken
		}
	}
	if whole {
		c.put(w)
	} else {
		c.drop(w, err)
	}
	return err
}

// Close closes the idle connections, and has those in use closed when they are
// released.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, w := range c.idle {
		w.nc.Close()
	}
	c.idle = nil
}

// get returns the connection that was used last and is still in order, or opens one. It
// gives the connection the token for the next request.
func (c *Conn) get(ctx context.Context) (*wire, error) {
	for {
		c.mu.Lock()
		token := newToken(c.tokens.Uint64())
		var w *wire
		if n := len(c.idle); n > 0 {
			w = c.idle[n-1]
			c.idle = c.idle[:n-1]
		}
		c.mu.Unlock()
		if w == nil {
			return c.open(ctx, token)
		}
		idle, stray := w.glance.idle()
		if idle {
			w.token = token
			return w, nil
		}
		w.nc.Close()
		if stray {
			c.strayed()
		}
	}
}

func (c *Conn) open(ctx context.Context, token token) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	w := &wire{nc: nc, buffers: c.buffers, in: bufio.NewReaderSize(nc, 8<<10), token: token}
	w.glance.watch(nc)
	return w, nil
}

// put keeps a connection for the next call, unless it must not be used again.
func (c *Conn) put(w *wire) {
	if w.in.Buffered() > 0 { // a second answer, for example
		c.strayed()
		w.spent = true
	}
	if w.spent {
		w.nc.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		w.nc.Close()
		return
	}
	c.idle = append(c.idle, w)
}

// drop closes a connection whose answer failed with err.
func (c *Conn) drop(w *wire, err error) {
	w.nc.Close()
	if errors.Is(err, errStray) {
		c.strayed()
	}
}

func (c *Conn) strayed() {
	if c.OnStray != nil {
		c.OnStray()
	}
}
