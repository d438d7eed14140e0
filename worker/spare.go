package worker

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
)

// spares are sockets that a listener accepts on beside its own: members of a
// reuse_port handle whose slot is gone. Little comes on them, what was under way
// when they were left, so each has a goroutine, and Accept is woken by a deadline. A
// goroutine holds one connection at most until Accept has taken it, or the listener
// is retired.
type spares struct {
	some atomic.Bool // there are any, or channels: what most listeners look at

	mu    sync.Mutex
	poked bool                     // Accept was woken by a deadline
	list  map[int]*net.TCPListener // by the number of the socket
	conns []*spareConn             // accepted, not taken yet
	all   chan struct{}            // closed by empty; nil as long as there was no spare
	empty bool                     // take all, as the listener is retired
	ended bool
	wg    sync.WaitGroup

	channels []*channel // see passed.go; replaced at a change
	over     bool       // no more channels
	watchers sync.WaitGroup
}

// spareConn is a connection that Accept has not taken yet.
type spareConn struct {
	*tcpConn
	taken chan struct{}
}

// addSpare takes a socket and accepts on it too.
func (l *listener) addSpare(number int, f *fdpass.File) {
	inner, err := fileListener(f)
	if err != nil {
		return // EMFILE: the supervisor's own copy keeps the queue for a successor
	}
	tcp, ok := inner.(*net.TCPListener)
	s := &l.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || s.ended {
		_ = inner.Close()
		return
	}
	if s.all == nil {
		s.all = make(chan struct{})
	}
	if old := s.list[number]; old != nil { // it has come again
		_ = old.Close()
	}
	if s.list == nil {
		s.list = map[int]*net.TCPListener{}
	}
	s.list[number] = tcp
	s.some.Store(true)
	s.wg.Add(1)
	go l.acceptSpare(tcp, s.all)
}

// leave accepts no more on a socket: who it is for is back, and has its queue.
func (s *spares) leave(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tcp := s.list[number]; tcp != nil {
		_ = tcp.Close()
		delete(s.list, number)
	}
}

func (l *listener) acceptSpare(from *net.TCPListener, all <-chan struct{}) {
	s := &l.spare
	defer s.wg.Done()
	var delay time.Duration
	for {
		c, err := from.AcceptTCP()
		switch {
		case err == nil:
			delay = 0
			next := &spareConn{l.tcpConn(c), make(chan struct{})}
			next.tally.spare = true
			s.mu.Lock()
			s.conns = append(s.conns, next)
			s.mu.Unlock()
			l.poke()
			select {
			case <-next.taken:
			case <-all:
			}
		case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed):
			return
		default: // EMFILE and the like
			delay = backoff(delay)
			timer := time.NewTimer(delay)
			select {
			case <-timer.C:
			case <-l.closing:
			}
			timer.Stop()
		}
	}
}

func (s *spares) any() bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) > 0
}

// take returns a connection of a spare, nil when there is none.
func (s *spares) take() net.Conn {
	if !s.any() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) == 0 {
		return nil
	}
	c := s.conns[0]
	s.conns = s.conns[1:]
	close(c.taken)
	return c.tcpConn
}

// retire lets the goroutines take all that waits.
func (s *spares) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry()
}

// hurry is retire with mu held.
func (s *spares) hurry() {
	if !s.empty && s.all != nil {
		s.empty = true
		close(s.all)
	}
}

// queued reports whether something is left to be taken.
func (s *spares) queued() bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) > 0 {
		return true
	}
	for _, tcp := range s.list {
		ready := false
		if raw, err := tcp.SyscallConn(); err == nil && raw.Control(func(fd uintptr) { ready = readable(fd) }) == nil && ready {
			return true
		}
	}
	return false
}

// end accepts no more on the spares; take still returns what was accepted.
func (s *spares) end() {
	if !s.some.Load() {
		return
	}
	s.mu.Lock()
	s.hurry()
	s.ended = true
	for _, tcp := range s.list {
		_ = tcp.SetDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tcp := range s.list {
		_ = tcp.Close()
	}
	s.list = nil
}

// close ends all of it: what was accepted and not taken is closed.
func (s *spares) close() {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, c := range s.conns {
		_ = c.TCPConn.Close()
	}
	s.conns = nil
}
