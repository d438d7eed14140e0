package worker

import (
	"net"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// What other workers passed on arrives on a channel, as hand-overs do, whatever way
// the listener has of its own. A goroutine waits until the channel is readable and
// wakes Accept, which reads: so nothing is read that the program does not take at that
// moment, and what a killed worker had not taken goes to another.

// channel takes the way on which connections come that other workers passed on.
func (w *Worker) channel(m proto.Channel, files []*fdpass.File) {
	w.mu.Lock()
	h := w.holds[m.Handle]
	if h == nil || len(files) != 2 {
		w.mu.Unlock()
		fdpass.CloseAll(files)
		return
	}
	l := h.l
	if l == nil {
		fdpass.CloseAll(h.channel)
		h.channel = files
	}
	w.mu.Unlock()
	if l != nil {
		l.addChannel(files[0], files[1])
	}
}

// addChannel takes the files of a channel.
func (l *listener) addChannel(file, page *fdpass.File) {
	if l.hand != nil { // it has one already
		fdpass.CloseAll([]*fdpass.File{file, page})
		return
	}
	addr := l.Addr()
	c, err := newChannel(file, page, proto.Grant{Network: addr.Network(), Address: addr.String()})
	if err != nil {
		return // EMFILE, ENOMEM: the supervisor sees the end, and tries others
	}
	s := &l.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		_ = c.Close()
		return
	}
	s.channels = append(slices.Clip(s.channels), c)
	s.some.Store(true)
	l.shown.Store(c)
	l.show()
	s.watchers.Go(func() { c.watch(l.poke, l.closing) })
}

// show writes the counts of the listener to the page of its channel.
func (l *listener) show() {
	if c := l.shown.Load(); c != nil {
		c.show(&l.taken, &l.closed)
	}
}

// poke wakes whoever waits in Accept.
func (l *listener) poke() {
	s := &l.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poked = true
	_ = l.SetDeadline(time.Unix(1, 0))
}

// woke reports whether a deadline was poke's, and takes it back then.
func (l *listener) woke() bool {
	s := &l.spare
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.poked {
		return false
	}
	s.poked = false
	_ = l.SetDeadline(l.until())
	return true
}

func (s *spares) listed() []*channel {
	if !s.some.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels
}

// owes reports whether connections were read and wait to be taken: they belong to nobody else any more.
func (l *listener) owes() bool {
	return l.hand != nil && l.hand.has() || slices.ContainsFunc(l.spare.listed(), (*channel).has)
}

// passed returns a connection that another worker passed on, nil when there is none.
func (l *listener) passed() net.Conn {
	for _, c := range l.spare.listed() {
		h, alive := c.next()
		if h != nil {
			return l.asAccepted(h)
		}
		if !alive {
			l.spare.drop(c)
		}
	}
	return nil
}

func (s *spares) drop(gone *channel) {
	_ = gone.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels = slices.DeleteFunc(slices.Clone(s.channels), func(c *channel) bool { return c == gone })
}

// asAccepted makes of a connection what Accept of this listener returns.
func (l *listener) asAccepted(h *handedConn) net.Conn {
	c, err := net.FileConn(h.file())
	if err != nil { // EMFILE: it does without a copy
		h.tally.l, h.tally.handed = l, true
		return h
	}
	_ = h.file().Close()
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{TCPConn: c, tally: tally{l: l, handed: true}}
	case *net.UnixConn:
		return &unixConn{UnixConn: c, tally: tally{l: l, handed: true}}
	}
	return c
}

// closeChannels ends them. What was not read goes to another worker.
func (s *spares) closeChannels() {
	s.mu.Lock()
	s.over = true
	for _, c := range s.channels {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.watchers.Wait()
}
