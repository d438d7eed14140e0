package worker

import (
	"errors"
	"net"
	"os"
	"time"
)

// accept is the accept loop of a period. Beyond what the net package does it
// costs a connection a Socket, a goroutine for its handler, and a few loads.
func (s *Server) accept(per *period, listening <-chan struct{}) {
	<-listening
	var delay time.Duration
	for s.hasRoom(per) {
		c, err := per.l.Accept()
		if err == nil {
			delay = 0
			s.take(per, c)
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && s.goOn(per) {
			continue
		}
		if errors.Is(err, net.ErrClosed) || s.isOver(per) {
			break
		}
		if f := s.options.OnError; f != nil {
			s.tell(func() { f(err) })
		}
		delay = backoff(delay)
		s.rest(per, delay)
	}
	_ = per.l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.period == per { // it was closed behind our back
		s.leavePeriod()
	}
	per.deaf = true
	s.settle(per)
}

// hasRoom waits for room where others may take what is left, and reports whether
// to go on.
func (s *Server) hasRoom(per *period) bool {
	for per.yields && s.isFull() {
		per.own.turn.away()
		per.own.giveBack()
		select {
		case <-s.freed:
		case <-per.stopping:
			// What a supervisor handed over belongs to nobody else any more.
			return per.own.owes()
		}
	}
	return true
}

func (s *Server) isFull() bool {
	limit := s.limit.Load()
	return limit != 0 && s.open.Load() >= limit
}

func (s *Server) isOver(per *period) bool {
	select {
	case <-per.stopping:
		return true
	default:
		return false
	}
}

// goOn takes back the deadline by which SetMaxConnections woke the loop, unless a
// drain has set one of its own since.
func (s *Server) goOn(per *period) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.period != per || per.own == nil {
		return false
	}
	return per.own.SetDeadline(time.Time{}) == nil
}

// rest lets time pass after an error of accept(2), such as EMFILE, which would be
// the same again at once.
func (s *Server) rest(per *period, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-per.stopping:
	}
}

// take deals with a connection that was accepted.
func (s *Server) take(per *period, c net.Conn) {
	if !per.yields && s.isFull() {
		d := Drop{LocalAddr: c.LocalAddr(), RemoteAddr: c.RemoteAddr()}
		_ = c.Close()
		if f := s.options.OnDrop; f != nil {
			s.tell(func() { f(d) })
		}
		return
	}
	if s.options.BlockList.blocks(c.RemoteAddr()) {
		_ = c.Close()
		return
	}
	s.prepare(c)
	sock := s.newSocket(per, c)
	if f := s.options.OnConnection; f != nil {
		s.tell(func() { f(sock) })
	}
	switch {
	case s.handler != nil:
		go s.handle(sock)
	case s.options.OnConnection == nil:
		_ = sock.Close()
	}
}

func (s *Server) handle(c *Socket) {
	defer func() { _ = c.Close() }()
	s.handler(c)
}

// prepare sets the options of a connection. A failure is not worth the
// connection: the peer may have gone already.
func (s *Server) prepare(c net.Conn) {
	o := &s.options
	if o.NoDelay == Default && o.KeepAlive == Default {
		return
	}
	t := tcpOf(c)
	if t == nil {
		return
	}
	if o.NoDelay != Default {
		_ = t.SetNoDelay(o.NoDelay == On)
	}
	switch idle := o.KeepAliveInitialDelay.Truncate(time.Second); {
	case o.KeepAlive == Off:
		_ = t.SetKeepAlive(false)
	case o.KeepAlive == On && idle > 0:
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: time.Second, Count: 10})
	case o.KeepAlive == On:
		_ = t.SetKeepAlive(true)
	}
}

// tuned is a TCP connection, or what embeds one.
type tuned interface {
	SetNoDelay(bool) error
	SetKeepAlive(bool) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
}

// tcpOf finds the TCP connection below c, or nil.
func tcpOf(c net.Conn) tuned {
	for {
		switch in := c.(type) {
		case tuned:
			return in
		case interface{ NetConn() net.Conn }:
			c = in.NetConn()
		default:
			return nil
		}
	}
}
