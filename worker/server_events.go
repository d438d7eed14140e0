package worker

import "sync"

// events calls callbacks one at a time, in order, on a goroutine that exists only
// while there is something to call. What fills it waits (see Server.tell), but
// for the few events of which a period has one each: so it is bounded.
type events struct {
	mu      sync.Mutex
	queue   []func()
	running bool
}

func (e *events) emit(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue = append(e.queue, f)
	if !e.running {
		e.running = true
		go e.run()
	}
}

func (e *events) run() {
	for {
		e.mu.Lock()
		if len(e.queue) == 0 {
			e.queue, e.running = nil, false
			e.mu.Unlock()
			return
		}
		f := e.queue[0]
		e.queue = e.queue[1:]
		e.mu.Unlock()
		f()
	}
}

// tell calls f in its turn and returns when it has returned.
func (s *Server) tell(f func()) {
	done := make(chan struct{})
	s.events.emit(func() {
		defer close(done)
		f()
	})
	<-done
}

// told returns a channel that is closed once f, which may be nil, was called in
// its turn.
func (s *Server) told(f func()) <-chan struct{} {
	done := make(chan struct{})
	if f == nil {
		close(done)
		return done
	}
	s.events.emit(func() {
		defer close(done)
		f()
	})
	return done
}
