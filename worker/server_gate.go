package worker

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// gate holds back the reads of a Socket. As long as it was never shut it costs a
// read one load.
type gate struct {
	shut   atomic.Bool // changed with mu held
	pauses atomic.Uint32

	mu       sync.Mutex // everything below
	closed   bool
	deadline time.Time     // the application's, whatever the connection has
	changed  chan struct{} // closed at a change; nil when nobody waits
}

// pass waits until the gate is open. Errors: net.ErrClosed,
// os.ErrDeadlineExceeded.
func (g *gate) pass() error {
	for g.shut.Load() {
		g.mu.Lock()
		if !g.shut.Load() { // opened meanwhile: nobody would wake us
			g.mu.Unlock()
			return nil
		}
		if g.closed {
			g.mu.Unlock()
			return net.ErrClosed
		}
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed, deadline := g.changed, g.deadline
		g.mu.Unlock()
		if deadline.IsZero() {
			<-changed
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// interrupted reports whether a read that ended at a deadline did so because the
// gate was shut.
func (g *gate) interrupted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline.IsZero() || time.Now().Before(g.deadline)
}

// pause shuts the gate; a read that waits in the connection comes back.
func (g *gate) pause(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut.Swap(true) {
		g.pauses.Add(1)
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

func (g *gate) resume(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut.Load() {
		_ = c.SetReadDeadline(g.deadline)
		g.shut.Store(false)
		g.tell()
	}
}

// setDeadline keeps the application's deadline, and gives it to the connection
// unless that has one of the gate's.
func (g *gate) setDeadline(c net.Conn, t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	g.tell()
	if g.shut.Load() {
		return nil
	}
	return c.SetReadDeadline(t)
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.tell()
}

// tell wakes those who wait; mu is held.
func (g *gate) tell() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}
