package worker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// serving is one HTTP server from start to drained. Its fields belong to the
// goroutine in Serve, but for those that are atomic.
type serving struct {
	w         *Worker
	srv       *http.Server
	own       []*listener
	foreign   []net.Listener
	gone      chan struct{} // capacity 1: perhaps nothing is open any more
	ended     chan error    // of each http.Server.Serve
	running   int           // how many of those have not ended
	signals   chan os.Signal
	signalled int
	hurried   bool // by a second signal

	closing   atomic.Bool  // answers carry Connection: close
	strangers atomic.Int64 // open connections of foreign listeners
}

func (s *serving) start(listeners []net.Listener) {
	select {
	case <-s.w.Draining(): // before anything is answered
		s.closing.Store(true)
	default:
	}
	if s.srv.Handler == nil {
		s.srv.Handler = http.DefaultServeMux
	}
	s.srv.Handler = &lastAnswers{next: s.srv.Handler, closing: &s.closing}
	state := s.srv.ConnState
	s.srv.ConnState = func(c net.Conn, to http.ConnState) {
		s.connState(c, to)
		if state != nil {
			state(c, to)
		}
	}
	c := s.srv.TLSConfig
	secure := c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil)
	for _, l := range listeners {
		if own, ok := l.(*listener); ok {
			own.gone.Store(&s.gone)
			own.turn.loops() // as http.Server does
			s.own = append(s.own, own)
		} else {
			s.foreign = append(s.foreign, l)
		}
		s.running++
		go func() {
			if secure {
				s.ended <- s.srv.ServeTLS(l, "", "")
			} else {
				s.ended <- s.srv.Serve(l)
			}
		}()
	}
}

// connState notes which connections have a request, and counts those that are
// not counted otherwise. A hijacked one of a foreign listener is not known any
// more.
func (s *serving) connState(c net.Conn, to http.ConnState) {
	if t := tallyOf(c); t != nil {
		if to != http.StateClosed {
			t.asked.Store(to == http.StateActive)
		}
		return
	}
	switch to {
	case http.StateNew:
		s.strangers.Add(1)
	case http.StateHijacked, http.StateClosed:
		if s.strangers.Add(-1) == 0 && s.closing.Load() {
			select {
			case s.gone <- struct{}{}:
			default:
			}
		}
	}
}

// drain is described at Serve.
func (s *serving) drain() error {
	s.w.mu.Lock()
	o := s.w.options
	s.w.mu.Unlock()
	own := time.Now().Add(o.graceful)
	s.closing.Store(true)
	for _, l := range s.own {
		l.lingers.Store(true)
		l.retire()
	}
	closeAll(s.foreign)
	s.join()
	if !s.wait(time.Now().Add(o.idleGrace), own) {
		// At the deadline Shutdown would close the idle ones, and whether anything
		// is left to tell would be chance.
		if deadline, _ := s.w.bound(own); s.hurried || !time.Now().Before(deadline) {
			return s.cut()
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.srv.Shutdown(ctx) }()
		finished := s.wait(time.Time{}, own)
		cancel()
		<-done
		if !finished {
			return s.cut()
		}
		return nil
	}
	// Nothing is open: this runs what RegisterOnShutdown registered.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.srv.Shutdown(ctx)
	return nil
}

// cut ends what is left at the deadline.
func (s *serving) cut() error {
	n := s.remaining()
	for _, l := range s.own {
		l.lingers.Store(false)
	}
	_ = s.srv.Close()
	return fmt.Errorf("%w: %d connections were open", ErrDeadline, n)
}

// join waits until every accept loop has ended: from then on no connection is
// added.
func (s *serving) join() {
	for ; s.running > 0; s.running-- {
		<-s.ended
	}
}

func (s *serving) remaining() int64 {
	n := s.strangers.Load()
	for _, l := range s.own {
		n += l.open.Load()
	}
	return n
}

// wait returns true once no connection is left, false at until (when not zero)
// or at the deadline of the drain, which is own unless the worker has one.
func (s *serving) wait(until, own time.Time) bool {
	for {
		deadline, moved := s.w.bound(own)
		if !until.IsZero() && until.Before(deadline) {
			deadline = until
		}
		if s.remaining() == 0 {
			return true
		}
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-s.gone:
		case <-moved:
		case <-timer.C:
			return s.remaining() == 0
		case <-s.signals:
			if s.signalled++; s.signalled > 1 {
				s.w.hurry()
				own, s.hurried = time.Now(), true
			}
		}
		timer.Stop()
	}
}

// lastAnswers makes the answers of a draining server the last ones of their
// connections.
type lastAnswers struct {
	next    http.Handler
	closing *atomic.Bool
}

// ServeHTTP lets next answer. A request that asks for another protocol is left
// alone: "Connection" then has another task in the answer.
func (h *lastAnswers) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if h.closing.Load() && r.Header.Get("Upgrade") == "" {
		rw.Header().Set("Connection", "close")
	}
	h.next.ServeHTTP(rw, r)
}
