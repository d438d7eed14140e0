package worker

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
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
	w       *Worker
	tcp     *net.TCPListener // one of the two is set
	unix    *net.UnixListener
	hand    *channel
	turn    *turnstile  // of a socket that other workers have too
	page    *memberPage // of reuse_port
	options acceptOptions
	spare   spares // sockets beside the one, of reuse_port, and what others passed on
	given   func() // gives the socket back; called once

	handle proto.HandleID // 0: the supervisor does not know it
	shown  atomic.Pointer[channel]

	once sync.Once
	err  error

	closing chan struct{} // closed by Close
	open    atomic.Int64
	taken   atomic.Uint64                 // from the kernel
	closed  atomic.Uint64                 // of all
	retired atomic.Bool                   // accept what is queued, no more
	left    atomic.Int64                  // connections that may still be taken then
	over    atomic.Int64                  // when that ends, Unix time in ns
	lingers atomic.Bool                   // see linger
	gone    atomic.Pointer[chan struct{}] // told when retired and nothing is open
}

// newListener takes inner. given is called after inner was closed, also on error.
func newListener(w *Worker, inner net.Listener, given func()) (*listener, error) {
	l := &listener{w: w, given: given, closing: make(chan struct{})}
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
	var patience time.Duration
	for l.mayAccept() {
		c, err := l.accept()
		if err == nil {
			l.enter(c)
			return c, nil
		}
		if errors.Is(err, syscall.EINVAL) && l.isMended(&patience) {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		if l.woke() {
			continue
		}
		if !l.retired.Load() {
			return nil, err
		}
		l.left.Store(0) // the time is over
	}
	l.spare.end()
	if c := l.spare.take(); c != nil {
		l.enter(c)
		return c, nil
	}
	_ = l.Close()
	return nil, net.ErrClosed
}

// shutPatience is how long Accept waits for a socket that somebody shut down.
const shutPatience = 2 * time.Second

// isMended waits a little for the supervisor to mend a socket that another worker
// has shut down (accept(2): EINVAL), and is false when it has waited for too long.
func (l *listener) isMended(waited *time.Duration) bool {
	if l.w.conn == nil || l.hand != nil || *waited >= shutPatience {
		return false
	}
	pause := max(time.Millisecond, *waited) // doubled each time
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	case <-l.w.lost:
		return false
	}
	*waited += pause
	return true
}

// mayAccept waits for room, and is false when the listener is retired and has
// taken what it was to take. What was handed over belongs to nobody else any more.
func (l *listener) mayAccept() bool {
	if l.owes() {
		return true
	}
	if !l.w.waitRoom(l) {
		return false
	}
	return !l.retired.Load() || l.left.Add(-1) >= 0 && l.queued()
}

func (l *listener) accept() (net.Conn, error) {
	if c := l.spare.take(); c != nil {
		return c, nil
	}
	if c := l.passed(); c != nil {
		return c, nil
	}
	if l.hand == nil || !l.hand.has() {
		// What is runnable goes first, above all the handler of the connection before:
		// a worker takes a connection when it has time for it, not before.
		runtime.Gosched()
	}
	l.turn.enter()
	c, err := l.acceptFrom()
	l.turn.leave(err != nil)
	return c, err
}

func (l *listener) acceptFrom() (net.Conn, error) {
	switch {
	case l.hand != nil:
		h, err := l.hand.accept()
		if err != nil {
			return nil, err
		}
		h.tally.l, h.tally.handed = l, true
		return h, nil
	case l.tcp != nil:
		t, err := l.tcp.AcceptTCP()
		if err != nil {
			return nil, err
		}
		return l.tcpConn(t), nil
	}
	u, err := l.unix.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &unixConn{UnixConn: u, tally: tally{l: l}}, nil
}

// acceptOptions are those of connections that the configuration states. The net package
// turns both on, whatever the socket has.
type acceptOptions struct{ noDelay, keepAlive *bool }

func (l *listener) tcpConn(t *net.TCPConn) *tcpConn {
	if on := l.options.noDelay; on != nil && !*on {
		_ = t.SetNoDelay(false)
	}
	if on := l.options.keepAlive; on != nil && !*on {
		_ = t.SetKeepAlive(false)
	}
	return &tcpConn{TCPConn: t, tally: tally{l: l}}
}

// Close closes this worker's descriptor and tells the supervisor. Connections
// stay. What was handed over and not taken goes to other workers, where there are
// some: to ask for that takes a second at most. A second Close returns what the first
// did.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.turn.stay()
		close(l.closing)
		l.err = l.streamListener.Close()
		l.spare.close()
		l.spare.closeChannels()
		if l.owes() { // who holds the handle may still pass it on
			l.giveBack()
		}
		l.given()
	})
	return l.err
}

// enter counts a connection in.
func (l *listener) enter(c net.Conn) {
	t := tallyOf(c)
	if !t.handed {
		l.taken.Add(1)
	}
	if !t.handed && !t.spare {
		l.page.accepted() // of what the kernel gave it, see package steer
	}
	l.open.Add(1)
	l.show()
	l.w.open.Add(1)
	l.w.accepted.Add(1)
	l.w.changed()
}

// leave counts a connection out.
func (l *listener) leave(t *tally) {
	full := l.mayBeFull()
	if l.hand != nil {
		l.hand.page.closed()
	}
	if !t.handed && !t.spare {
		l.page.closed()
	}
	l.closed.Add(1)
	left := l.open.Add(-1)
	l.show()
	l.w.left()
	if full {
		l.room()
	}
	l.w.changed()
	if left == 0 && l.retired.Load() {
		l.signal()
	}
}

// mayBeFull reports whether the supervisor may think that the worker can have no more:
// it counts what it has handed over, taken here or not.
func (l *listener) mayBeFull() bool {
	limit := l.w.limit()
	if limit == 0 {
		return false
	}
	n := l.w.open.Load() + proto.MaxHandover
	for _, c := range append([]*channel{l.hand}, l.spare.listed()...) {
		if c != nil {
			n += c.waiting()
		}
	}
	return n >= limit
}

// room tells the supervisor that connections may be handed over again.
func (l *listener) room() {
	if l.hand != nil {
		l.hand.room()
	}
	if c := l.shown.Load(); c != nil {
		c.room()
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
	end := time.Now().Add(retireTime)
	l.left.Store(retireMost)
	l.over.Store(end.UnixNano())
	l.retired.Store(true)
	l.w.stirRoom()
	l.spare.retire()
	l.turn.stay()
	if !l.queued() {
		_ = l.Close()
		return
	}
	_ = l.SetDeadline(end)
}

// until is the deadline of Accept: that of the retirement, or none.
func (l *listener) until() time.Time {
	if !l.retired.Load() {
		return time.Time{}
	}
	return time.Unix(0, l.over.Load())
}

// queued reports whether a connection waits to be accepted.
func (l *listener) queued() bool {
	if l.owes() || l.spare.queued() || slices.ContainsFunc(l.spare.listed(), (*channel).waits) {
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
