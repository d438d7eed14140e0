package worker

import (
	"context"
	"errors"
	"net"
	"time"
)

// place is where a server is to listen.
type place struct {
	l      net.Listener
	addr   net.Addr // to be shown instead of l's
	shared bool     // other workers have the same socket, if there are others
}

// listen opens a place and begins to accept there. It blocks as long as open does.
//
//	idle ──listen──▶ asking ──opened──▶ listening ──Stop, ctx, drain──▶ closing ──last one ended──▶ idle
//	                   │ error: OnError                                   │ listen
//	                   │ Stop, ctx: OnClose                               ▼
//	                   └────────▶ idle                                  asking
func (s *Server) listen(ctx context.Context, open func(context.Context, *Worker) (place, error)) error {
	s.mu.Lock()
	if s.asking != nil || s.period != nil {
		s.mu.Unlock()
		return ErrAlreadyListening
	}
	actx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.asking = cancel
	s.mu.Unlock()

	w, p, err := s.ask(actx, open)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = nil
	if cause := context.Cause(actx); cause != nil {
		if err == nil {
			_ = p.l.Close()
		}
		s.closeUnopened()
		return cause
	}
	if err != nil {
		s.stir()
		if f := s.options.OnError; f != nil && !isMisuse(err) {
			s.told(func() { f(err) })
		}
		return err
	}
	s.begin(ctx, w, p)
	return nil
}

// isMisuse reports whether a Listen failed by a mistake of its caller, such as the
// reference throws; OnError does not hear of those.
func isMisuse(err error) bool {
	var address *net.AddrError
	return errors.As(err, &address) || errors.Is(err, ErrBadListen) || errors.Is(err, ErrServerNotRunning)
}

// ask finds the worker and opens the place.
func (s *Server) ask(ctx context.Context, open func(context.Context, *Worker) (place, error)) (*Worker, place, error) {
	if err := ctx.Err(); err != nil {
		return nil, place{}, err
	}
	w := s.options.Worker
	if w == nil {
		var err error
		if w, err = Join(ctx); err != nil {
			return nil, place{}, err
		}
	}
	s.mu.Lock()
	s.w = w
	s.mu.Unlock()
	w.attach(s)
	select {
	case <-w.drainc:
		return w, place{}, ErrDraining
	default:
	}
	p, err := open(ctx, w)
	return w, p, err
}

// begin makes a listening server of one that asked; mu is held.
func (s *Server) begin(ctx context.Context, w *Worker, p place) {
	per := &period{w: w, l: p.l, stopping: make(chan struct{}), closed: make(chan struct{})}
	if per.own, _ = p.l.(*listener); per.own != nil {
		per.own.turn.loops()
	}
	per.yields = per.own != nil && p.shared && w.Supervised() && !s.options.DropMaxConnections
	s.period, s.periods, s.addr = per, s.periods+1, p.addr
	if s.addr == nil {
		s.addr = p.l.Addr()
	}
	listening := s.told(s.options.OnListening)
	per.forget = context.AfterFunc(ctx, func() { _, _ = s.end(per, false) })
	go func() {
		select {
		case <-w.drainc:
			_, _ = s.end(per, true)
		case <-per.stopping:
		}
	}()
	go s.accept(per, listening)
}

// Stop ends the listening and does not wait: connections stay, and OnClose is
// called when the last of them has ended. Connections in the accept queue are
// refused, unless other workers share the socket. A Listen under way is given up.
// Errors: ErrServerNotRunning when the server does not listen; OnClose is called
// then too, once nothing is open.
func (s *Server) Stop() error {
	_, err := s.end(nil, false)
	return err
}

// Close is Stop, and waits until the last connection has ended and OnClose has
// returned. It must not be called by a callback, nor by a handler, whose own
// connection it would wait for. Errors: ErrServerNotRunning, at once.
func (s *Server) Close() error { return s.Shutdown(context.Background()) }

// Shutdown is Close with an end to the waiting, not to the connections. Errors:
// ErrServerNotRunning, at once; ctx's.
func (s *Server) Shutdown(ctx context.Context) error {
	closed, err := s.end(nil, false)
	if err != nil {
		return err
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends a period: the one given, or any; closed is closed when all of it is
// over. A drain takes what is in the accept queue first, within bounds.
func (s *Server) end(only *period, drain bool) (closed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	per := s.period
	switch {
	case only != nil && only != per:
		return nil, nil // that one has ended already
	case per == nil && s.asking != nil:
		s.asking(ErrServerClosed)
		return nil, ErrServerNotRunning
	case per == nil:
		s.closeUnopened()
		return nil, ErrServerNotRunning
	}
	s.leavePeriod()
	if drain && per.own != nil {
		per.own.retire()
	} else {
		_ = per.l.Close() // with mu held: whoever listens next finds the address free
	}
	s.stir()
	return per.closed, nil
}

// leavePeriod lets the server listen no more; mu is held.
func (s *Server) leavePeriod() {
	close(s.period.stopping)
	s.period.forget()
	s.period = nil
}

// settle ends a period that is over; mu is held.
func (s *Server) settle(per *period) {
	if !per.over && per != s.period && per.deaf && per.open.Load() == 0 {
		per.over = true
		s.periods--
		s.tellClosed(per.closed)
	}
	s.stir()
}

// closeUnopened is the close of a server without a socket, which has its event
// too, unless that of an earlier period is still to come; mu is held.
func (s *Server) closeUnopened() {
	if s.periods == 0 {
		s.tellClosed(make(chan struct{}))
	}
	s.stir()
}

// tellClosed calls OnClose in its turn, then closes closed; mu is held.
func (s *Server) tellClosed(closed chan struct{}) {
	s.telling++
	s.events.emit(func() {
		if f := s.options.OnClose; f != nil {
			f()
		}
		close(closed)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.telling--
		s.stir()
	})
}

// stir lets those who wait for the worker look again; mu is held. A server that
// does nothing is not the worker's any more, and can be collected.
func (s *Server) stir() {
	if s.w != nil {
		s.w.stir(s, s.asking == nil && s.periods == 0 && s.telling == 0)
	}
}

// keeps returns whether the server keeps its worker from ending, and how many
// connections it has.
func (s *Server) keeps() (bool, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.open.Load()
	return n > 0 || s.telling > 0 || !s.unref && (s.asking != nil || s.periods > 0), n
}

// backoff is how long an accept loop waits after errors in a row.
func backoff(last time.Duration) time.Duration {
	return min(max(5*time.Millisecond, 2*last), time.Second)
}
