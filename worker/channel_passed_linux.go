package worker

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// next returns a connection if one is there; it does not wait for any. alive is
// false when none will come any more.
func (c *channel) next() (h *handedConn, alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ready) == 0 {
		ready, err := c.readable()
		if err == nil && !ready {
			return nil, true
		}
		if err == nil {
			err = c.receive()
			select {
			case c.taken <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return nil, errors.Is(err, unix.EMFILE) // they were refused, and there may be more
		}
	}
	h = c.ready[0]
	c.ready = c.ready[1:]
	c.left.Store(int32(len(c.ready)))
	return h, true
}

// readable reports whether next would find something. Errors: os.ErrClosed.
func (c *channel) readable() (ready bool, err error) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { ready = readable(fd) })
	}
	return ready, err
}

// waits reports whether a connection waits here, answered for or not.
func (c *channel) waits() bool {
	ready, _ := c.readable()
	return ready || c.has()
}

// watch calls poke when something can be read, once until next has read it. It ends
// with the channel, or with closing.
func (c *channel) watch(poke func(), closing <-chan struct{}) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var delay time.Duration
	for raw.Read(readable) == nil {
		poke()
		select {
		case <-c.taken:
		case <-closing:
			return
		}
		if !c.hasRefused() {
			delay = 0
			continue
		}
		delay = backoff(delay)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-closing:
		}
		timer.Stop()
		c.ask()
	}
}

func (c *channel) hasRefused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full
}

// ask lets connections come again after some were refused.
func (c *channel) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full && c.say(proto.Verdict{What: proto.Room}) == nil {
		c.full = false
	}
}

// show keeps the page equal to n, whose changes are each followed by a show: the
// last one to write has looked again afterwards.
func (c *channel) show(n *atomic.Int64) {
	for {
		now := n.Load()
		atomic.StoreInt64(c.page, now)
		if n.Load() == now {
			return
		}
	}
}

// file is the connection as a file, which the handedConn goes on owning.
func (c *handedConn) file() *os.File { return c.socketFile.File }
