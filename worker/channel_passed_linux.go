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
		err := c.receive(c.conn.TryTake)
		if c.poked.Swap(false) {
			c.taken <- struct{}{}
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EMFILE) { // who is full is asked again
			return nil, true
		}
		if err != nil {
			return nil, false
		}
	}
	return c.pop(), true
}

// readable reports whether there is something to read. Errors: os.ErrClosed.
func (c *channel) readable() (ready bool, err error) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { ready = readable(fd) })
	}
	return ready, err
}

// waits reports whether a connection waits here, read or not.
func (c *channel) waits() bool {
	ready, _ := c.readable()
	return ready || c.has()
}

// watch calls poke when something can be read, once until next has looked. It ends
// with the channel, or with closing.
func (c *channel) watch(poke func(), closing <-chan struct{}) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var delay time.Duration
	for raw.Read(readable) == nil {
		c.poked.Store(true)
		poke()
		select {
		case <-c.taken:
		case <-closing:
			return
		}
		if !c.isFull() {
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

func (c *channel) isFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full
}

// ask lets connections come again.
func (c *channel) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full && c.say(proto.Room) == nil {
		c.full = false
	}
}

// show keeps the page equal to the counts, whose changes are each followed by a
// show: the last one to write has looked again afterwards.
func (c *channel) show(accepted, closed *atomic.Uint64) {
	for {
		a, n := accepted.Load(), closed.Load()
		c.page.set(a, n)
		if accepted.Load() == a && closed.Load() == n {
			return
		}
	}
}

// file is the connection as a file, which the handedConn goes on owning.
func (c *handedConn) file() *os.File { return c.socketFile.File }
