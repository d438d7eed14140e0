package worker

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// When a server drains, connections that the kernel had queued are still taken,
// but neither more than these nor longer than this: other workers fill and empty
// the same queue.
const (
	retireMost = 128
	retireTime = 50 * time.Millisecond
)

// streamListener is what *net.TCPListener and *net.UnixListener have in common.
type streamListener interface {
	net.Listener
	SetDeadline(time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

// listener counts the connections of a socket. It adds nothing else to the
// accept path of the net package.
type listener struct {
	streamListener
	w     *Worker
	tcp   *net.TCPListener // one of the two is set
	unix  *net.UnixListener
	hand  *channel
	given func() // gives the socket back; called once
	once  sync.Once
	err   error

	open    atomic.Int64
	retired atomic.Bool // accept what is queued, no more
	left    atomic.Int64
	lingers atomic.Bool                   // see linger
	gone    atomic.Pointer[chan struct{}] // told when retired and nothing is open
}

// newListener takes inner. given is called after inner was closed, also on error.
func newListener(w *Worker, inner net.Listener, given func()) (*listener, error) {
	l := &listener{w: w, given: given}
	switch in := inner.(type) {
	case *net.TCPListener:
		l.streamListener, l.tcp = in, in
	case *net.UnixListener:
		l.streamListener, l.unix = in, in
	case *channel:
		l.streamListener, l.hand = in, in
	default:
		_ = inner.Close()
		given()
		return nil, net.UnknownNetworkError(inner.Addr().Network())
	}
	return l, nil
}

// Accept returns the next connection, which embeds a *net.TCPConn or
// *net.UnixConn.
func (l *listener) Accept() (net.Conn, error) {
	if l.retired.Load() && (l.hand == nil || !l.hand.has()) && (l.left.Add(-1) < 0 || !l.queued()) {
		_ = l.Close()
		return nil, net.ErrClosed
	}
	var c net.Conn
	var err error
	switch {
	case l.hand != nil:
		var h *handedConn
		if h, err = l.hand.accept(); err == nil {
			h.tally.l = l
			c = h
		}
	case l.tcp != nil:
		var t *net.TCPConn
		if t, err = l.tcp.AcceptTCP(); err == nil {
			c = &tcpConn{TCPConn: t, tally: tally{l: l}}
		}
	default:
		var u *net.UnixConn
		if u, err = l.unix.AcceptUnix(); err == nil {
			c = &unixConn{UnixConn: u, tally: tally{l: l}}
		}
	}
	if err != nil {
		if l.retired.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			_ = l.Close()
			err = net.ErrClosed
		}
		return nil, err
	}
	l.open.Add(1)
	l.w.open.Add(1)
	l.w.accepted.Add(1)
	l.w.changed()
	return c, nil
}

// Close closes this worker's descriptor and tells the supervisor. Connections
// stay. A second Close returns what the first did.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.err = l.streamListener.Close()
		l.given()
	})
	return l.err
}

// leave counts a connection out.
func (l *listener) leave() {
	if l.hand != nil {
		l.hand.count(-1)
	}
	l.w.open.Add(-1)
	l.w.changed()
	if l.open.Add(-1) == 0 && l.retired.Load() {
		l.signal()
	}
}

func (l *listener) signal() {
	if gone := l.gone.Load(); gone != nil {
		select {
		case *gone <- struct{}{}:
		default:
		}
	}
}

// retire stops accepting once the queue was empty, retireMost were taken or
// retireTime is over; the goroutine in Accept then gets net.ErrClosed.
func (l *listener) retire() {
	l.left.Store(retireMost)
	l.retired.Store(true)
	if !l.queued() {
		_ = l.Close()
		return
	}
	_ = l.SetDeadline(time.Now().Add(retireTime))
}

// queued reports whether a connection waits to be accepted.
func (l *listener) queued() bool {
	if l.hand != nil && l.hand.has() {
		return true
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	var ready bool
	_ = raw.Control(func(fd uintptr) { ready = readable(fd) })
	return ready
}
