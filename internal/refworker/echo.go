package refworker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxDatagram is the largest datagram of UDP over IPv4 with room to spare.
const maxDatagram = 64 << 10

// readOn is for how long datagrams are read once the worker drains: what is in the
// queue of a reuse_port socket, or under way to it, is for no other worker.
const readOn = 50 * time.Millisecond

// serveEcho sends back what it receives. To drain it closes its listeners, reads on
// for a moment where there are datagrams, and lets the connections go on until they
// end, or until the deadline.
func (r *reference) serveEcho(sigs <-chan os.Signal) error {
	var conns sync.WaitGroup
	ended := make(chan error, len(r.streams)+len(r.packets))
	for _, l := range r.streams {
		go func() { ended <- acceptEcho(l, &conns) }()
	}
	for _, p := range r.packets {
		go func() { ended <- packetEcho(p) }()
	}
	if !r.neverReady {
		_ = r.w.Ready()
	}
	running := cap(ended)
	select {
	case err := <-ended:
		return err
	case s := <-sigs:
		r.w.Drain("signal: " + s.String())
	case <-r.draining():
	}
	for _, l := range r.streams {
		_ = l.Close()
	}
	for _, p := range r.packets {
		_ = p.SetReadDeadline(time.Now().Add(readOn))
	}
	for ; running > 0; running-- {
		<-ended // no connection is added from here on
	}
	done := make(chan struct{})
	go func() { conns.Wait(); close(done) }()
	timer := time.NewTimer(time.Until(r.w.DrainDeadline()))
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	return r.w.Close()
}

// shortPause is how long it waits for descriptors, as net/http does at first.
const shortPause = 5 * time.Millisecond

// isShort reports whether accept failed for a lack of descriptors: one that is closed
// mends it.
func isShort(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func acceptEcho(l net.Listener, conns *sync.WaitGroup) error {
	for {
		c, err := l.Accept()
		if isClosed(err) {
			return nil
		}
		if isShort(err) {
			timer := time.NewTimer(shortPause)
			<-timer.C
			continue
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer func() { _ = c.Close() }()
			_, _ = io.Copy(c, c)
		})
	}
}

func packetEcho(p net.PacketConn) error {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := p.ReadFrom(buf)
		if isClosed(err) || errors.Is(err, os.ErrDeadlineExceeded) {
			return p.Close()
		}
		if err != nil {
			return err
		}
		if from != nil {
			_, _ = p.WriteTo(buf[:n], from)
		}
	}
}
