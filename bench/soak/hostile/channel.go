package main

import (
	"log"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// channel is this end of a channel of Node. Nothing is read unless somebody says so.
type channel struct{ fd int }

func (c *channel) say(lines ...string) { c.write([]byte(strings.Join(lines, "\n") + "\n")) }

// always writes the same for ever.
func (c *channel) always(text string) {
	for b := []byte(text); ; {
		c.write(b)
	}
}

func (c *channel) write(b []byte) {
	for len(b) > 0 {
		b = b[c.send(b, nil):]
	}
}

// send writes once, when there is room. When the master has ended the channel this
// process waits for what becomes of it.
func (c *channel) send(b, oob []byte) int {
	for {
		n, err := unix.SendmsgN(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return n
		case unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}, -1)
		case unix.ETOOMANYREFS: // of those on their way
			_, _ = unix.Poll(nil, 1)
		case unix.EPIPE, unix.ECONNRESET:
			select {}
		default:
			log.Fatalf("cannot write to the channel: %v", err)
		}
	}
}

// discard reads what the master says, and lets it be.
func (c *channel) discard() {
	for b := make([]byte, 64<<10); ; {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, -1)
		if n, err := unix.Read(c.fd, b); n == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR {
			if err == nil {
				return
			}
			os.Exit(1)
		}
	}
}
