package load

import (
	"container/heap"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A connection goes
//
//	open -> busy -> closing -> free     the server closes first
//	             -> idle -> busy        kept
//	             -> free                failed, or we close first
type phase uint8

const (
	phaseFree phase = iota
	phaseBusy
	phaseIdle
	phaseClosing
)

const (
	readable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	ended    = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// conn is a place for a connection; it is used again with its buffers. The loop
// owns fd from open to drop.
type conn struct {
	fd      int
	slot    int32
	turn    int32 // grows when the place is given up; tells stale events
	watched uint32
	phase   phase

	flow   *flow
	client *client // nil: open loop, or detached
	sched  int64   // latency runs from here
	begun  int64   // Timeout runs from here; closing: since when
	uses   int     // answers so far
	pid    int     // of the last answer

	out  []byte // not written yet
	size int    // of the whole request
	line []byte // echo: the request
	in   []byte // received so far
	head head

	prev, next *conn // in busy or closing
}

// begin begins a request of f that was scheduled for at, by client if not nil.
func (l *loop) begin(f *flow, cl *client, at int64) {
	var c *conn
	if cl != nil && cl.conn != nil {
		// One more look before the write: a FIN that is here already is the
		// server's right, and any pool of connections would see it. What
		// comes after this line is the race that loses requests.
		c = cl.conn
		l.idle(c)
		c = cl.conn
	}
	now := l.now()
	if cl != nil && f.Every == 0 {
		at = now // no schedule: latency runs from here
	}
	f.fig.Begun++
	f.fig.MaxLag = max(f.fig.MaxLag, time.Duration(now-at))
	f.last = now
	l.active++
	fresh := c == nil
	if fresh {
		c = l.take()
		c.flow, c.fd, c.uses, c.pid = f, -1, 0, 0
	}
	c.client, c.phase, c.sched, c.begun = cl, phaseBusy, at, now
	c.in, c.head = c.in[:0], head{}
	c.out = f.request
	if f.Proto == Echo {
		c.line = appendLine(c.line[:0], f.index, f.fig.Begun)
		c.out = c.line
	}
	c.size = len(c.out)
	if cl != nil {
		cl.conn = nil
	}
	l.busy.push(c)
	if fresh && !l.connect(c) {
		return
	}
	l.send(c)
}

// connect makes the socket and starts the connection. It returns false when the
// request has failed already.
func (l *loop) connect(c *conn) bool {
	f := c.flow
	f.fig.Connections++
	var err error
	c.fd, err = unix.Socket(f.domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.fd = -1
		l.fail(c, Other, "socket: "+err.Error())
		return false
	}
	if f.Reset {
		err = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if err == nil && len(f.sources) > 0 {
		// ip(7): the port is chosen at connect(2), for the pair of addresses.
		err = unix.SetsockoptInt(c.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(c.fd, f.sources[f.turn])
			f.turn = (f.turn + 1) % len(f.sources)
		}
	}
	if err != nil {
		l.fail(c, Other, "socket options: "+err.Error())
		return false
	}
	switch err := unix.Connect(c.fd, f.dest); {
	case err == nil, err == unix.EINPROGRESS, err == unix.EINTR:
		return true
	case err == unix.EAGAIN && f.domain == unix.AF_UNIX:
		// unix(7): a non-blocking connect does not wait for room in the queue.
		l.fail(c, QueueFull, "connect: the accept queue is full")
	case err == unix.ENOENT:
		l.fail(c, Refused, "connect: "+err.Error())
	default:
		l.fail(c, kindOf(err), "connect: "+err.Error())
	}
	return false
}

// send writes what is left of the request. Over loopback a connection is there
// when connect returns, so one write most often does it.
func (l *loop) send(c *conn) {
	for len(c.out) > 0 {
		n, err := unix.Write(c.fd, c.out)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if err == unix.ECONNREFUSED {
			l.fail(c, Refused, "connect: "+err.Error()) // told to whoever asks first
			return
		}
		if err != nil {
			l.fail(c, kindOf(err), fmt.Sprintf("write of %d bytes, %d written before: %v", len(c.out), c.size-len(c.out), err))
			return
		}
		c.out = c.out[n:]
	}
	want := uint32(readable)
	if len(c.out) > 0 {
		want |= unix.EPOLLOUT
	}
	if want&^c.watched == 0 {
		return
	}
	op := unix.EPOLL_CTL_ADD
	if c.watched != 0 {
		op = unix.EPOLL_CTL_MOD
	}
	if err := unix.EpollCtl(l.epfd, op, c.fd, &unix.EpollEvent{Events: want, Fd: c.slot, Pad: c.turn}); err != nil {
		l.fail(c, Other, "epoll_ctl: "+err.Error())
		return
	}
	c.watched = want
}

// handle does what an event asks for.
func (l *loop) handle(c *conn, events uint32) {
	switch c.phase {
	case phaseBusy:
		if len(c.out) > 0 {
			l.send(c)
		}
		if c.phase == phaseBusy {
			l.receive(c, events)
		}
	case phaseIdle:
		l.idle(c)
	case phaseClosing:
		l.finish(c)
	}
}

// receive reads and judges the answer.
func (l *loop) receive(c *conn, events uint32) {
	for {
		if len(c.in) == cap(c.in) {
			c.grow()
		}
		n, err := unix.Read(c.fd, c.in[len(c.in):cap(c.in)])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return
		case err != nil && len(c.out) > 0 && len(c.out) == c.size:
			l.fail(c, kindOf(err), "connect: "+err.Error())
			return
		case err != nil:
			l.fail(c, kindOf(err), fmt.Sprintf("read after %d bytes: %v", len(c.in), err))
			return
		case n == 0 && len(c.in) == 0:
			l.fail(c, EOFBeforeAnswer, fmt.Sprintf("closed after %d of %d request bytes", c.size-len(c.out), c.size))
			return
		case n == 0:
			l.fail(c, EOFInAnswer, fmt.Sprintf("closed after %d bytes of the answer", len(c.in)))
			return
		}
		full := n == cap(c.in)-len(c.in)
		c.in = c.in[:len(c.in)+n]
		done, err := c.answer()
		if err != nil {
			l.fail(c, WrongAnswer, err.Error())
			return
		}
		if done {
			l.answered(c, full || events&ended != 0)
			return
		}
		// Edge triggered: after a short read a new event comes with new bytes.
		if !full && events&ended == 0 {
			return
		}
	}
}

// kindOf names an errno.
func kindOf(err error) Kind {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return Reset
	case errors.Is(err, unix.ETIMEDOUT):
		return Timeout
	}
	return Other
}

// again puts a client back to wait for its next request.
func (l *loop) again(cl *client, pause time.Duration) {
	if cl.flow.Every > 0 {
		cl.due += int64(cl.flow.Every)
	} else {
		cl.due = l.now() + int64(pause)
	}
	heap.Push(&l.waiting, cl)
}
