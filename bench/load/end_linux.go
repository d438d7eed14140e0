package load

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstBuffer = 2 << 10
	keptBuffer  = 64 << 10 // a greater one is given back with the connection
)

// answer judges the bytes received so far; done says that the answer is full.
func (c *conn) answer() (done bool, err error) {
	if c.flow.Proto == Echo {
		n := min(len(c.in), len(c.line))
		if !bytes.Equal(c.in[:n], c.line[:n]) || len(c.in) > len(c.line) {
			return false, fmt.Errorf("sent %q, got %.60q", c.line, c.in)
		}
		return n == len(c.line), nil
	}
	if c.head.size == 0 {
		if c.head, err = parseHead(c.in); err != nil || c.head.size == 0 {
			return false, err
		}
	}
	need := c.head.size + c.head.length
	if len(c.in) < need {
		return false, nil
	}
	body := c.in[c.head.size:need]
	switch f := c.flow; {
	case len(c.in) > need:
		err = fmt.Errorf("%d bytes after the answer: %.40q", len(c.in)-need, c.in[need:])
	case len(c.out) > 0:
		err = fmt.Errorf("answered before the request was sent")
	case f.Match != nil && !f.Match.Match(body):
		err = fmt.Errorf("the body %.60q does not match %v", body, f.Match)
	case f.Check != nil:
		if err = f.Check(body); err != nil {
			err = fmt.Errorf("the body %.60q: %w", body, err)
		}
	}
	return err == nil, err
}

// grow makes room for more of the answer. parseHead bounds what is wanted.
func (c *conn) grow() {
	size := max(firstBuffer, 2*cap(c.in), c.head.size+c.head.length+1)
	c.in = append(make([]byte, 0, size), c.in...)
}

// answered counts a full and right answer; more says that the end of the
// connection is there to be read as well.
func (l *loop) answered(c *conn, more bool) {
	now := l.now()
	latency := now - c.sched
	if c.head.pid != 0 {
		c.pid = c.head.pid
	}
	f := c.flow
	f.right(c.head.pid, now, latency)
	if latency > int64(l.plan.Late) {
		l.count(c, Late, fmt.Sprintf("answered after %v, begun %v behind its schedule",
			time.Duration(latency).Round(time.Microsecond), time.Duration(c.begun-c.sched).Round(time.Microsecond)))
	} else {
		f.fig.Answered++
	}
	c.uses++
	l.active--
	l.busy.remove(c)
	cl := c.client
	if f.KeepAlive && !c.head.close {
		cl.conn, c.phase = c, phaseIdle
		l.again(cl, 0)
		if more {
			l.idle(c)
		}
		return
	}
	c.client = nil
	if cl != nil {
		l.again(cl, 0)
	}
	if f.KeepAlive {
		f.fig.AskedClosed++
	}
	if f.Proto == Echo {
		l.drop(c) // an echo server waits for us
		return
	}
	c.phase, c.begun = phaseClosing, now
	l.closing.push(c)
	if more {
		l.finish(c)
	}
}

// idle looks at a kept connection between two requests and drops it when it is
// no longer good.
func (l *loop) idle(c *conn) {
	n, err := l.look(c)
	switch {
	case err == unix.EAGAIN:
		return
	case err != nil:
		l.unasked(c, kindOf(err), "an idle connection: "+err.Error())
	case n > 0:
		l.unasked(c, WrongAnswer, fmt.Sprintf("bytes on an idle connection: %.60q", c.in[:n]))
	default:
		c.flow.fig.IdleClosed++
	}
	c.client.conn = nil
	l.drop(c)
}

// finish waits for the server to close after its last answer.
func (l *loop) finish(c *conn) {
	n, err := l.look(c)
	switch {
	case err == unix.EAGAIN:
		return
	case err == unix.ECONNRESET:
		c.flow.fig.ResetAfter++
	case n > 0:
		l.unasked(c, WrongAnswer, fmt.Sprintf("bytes after the last answer: %.60q", c.in[:n]))
	}
	l.closing.remove(c)
	l.drop(c)
}

// look reads when no answer is awaited.
func (l *loop) look(c *conn) (int, error) {
	for {
		n, err := unix.Read(c.fd, c.in[:cap(c.in)])
		if err != unix.EINTR {
			return n, err
		}
	}
}

// fail ends a request and its connection.
func (l *loop) fail(c *conn, kind Kind, text string) {
	l.count(c, kind, text)
	l.active--
	l.busy.remove(c)
	if c.client != nil {
		l.again(c.client, retryGap)
	}
	l.drop(c)
}

// unasked counts a failure outside a request.
func (l *loop) unasked(c *conn, kind Kind, text string) {
	c.head = head{}
	c.flow.fig.Unasked++
	l.count(c, kind, text)
}

func (l *loop) count(c *conn, kind Kind, text string) {
	f := c.flow
	f.fig.Failed[kind]++
	if c.uses > 0 {
		f.fig.Reused++
	}
	if l.nth[kind]++; l.nth[kind] > l.plan.Examples {
		return
	}
	e := Example{At: time.Duration(l.now()), Kind: kind, Group: f.Name, PID: c.head.pid, Reused: c.uses > 0, Text: text}
	if e.PID == 0 {
		e.PID = c.pid
	}
	l.examples = append(l.examples, e)
}

// take returns a free place.
func (l *loop) take() *conn {
	l.open++
	if n := len(l.free); n > 0 {
		c := l.free[n-1]
		l.free = l.free[:n-1]
		return c
	}
	c := &conn{slot: int32(len(l.conns)), fd: -1}
	l.conns = append(l.conns, c)
	return c
}

// drop closes the socket and gives the place back.
func (l *loop) drop(c *conn) {
	if c.fd >= 0 {
		unix.Close(c.fd) // leaves the epoll set: nobody else holds the open file
	}
	l.open--
	c.fd, c.phase, c.watched, c.client, c.out = -1, phaseFree, 0, nil, nil
	c.turn++
	if cap(c.in) > keptBuffer {
		c.in = nil
	}
	l.free = append(l.free, c)
}

// list is a queue of connections, oldest first.
type list struct{ head, tail *conn }

func (q *list) push(c *conn) {
	c.prev, c.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = c
	} else {
		q.head = c
	}
	q.tail = c
}

func (q *list) remove(c *conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.tail = c.prev
	}
	c.prev, c.next = nil, nil
}
