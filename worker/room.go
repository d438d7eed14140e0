package worker

import "sync"

// room is where listeners wait while the worker has as many connections as its
// pool's max_connections allows. What they do not take goes to other workers, or
// waits in the kernel.
type room struct {
	mu    sync.Mutex
	freed chan struct{} // closed at a change; nil when nobody waits
}

// limit is how many connections the worker may have open at once, 0 for no limit.
func (w *Worker) limit() int64 { return w.identity.Load().MaxConnections }

func (w *Worker) isFull() bool {
	limit := w.limit()
	return limit > 0 && w.open.Load() >= limit
}

// waitRoom waits until the worker may have another connection; false when the
// listener is closed or retired first.
func (w *Worker) waitRoom(l *listener) bool {
	for w.isFull() {
		l.turn.away()
		w.room.mu.Lock()
		if w.room.freed == nil {
			w.room.freed = make(chan struct{})
		}
		freed := w.room.freed
		w.room.mu.Unlock()
		if !w.isFull() { // between the look and the lock
			break
		}
		if l.retired.Load() {
			return false
		}
		select {
		case <-freed:
		case <-l.closing:
			return true // and Accept says so
		}
	}
	return true
}

// left counts a connection out, and wakes those who wait for room.
func (w *Worker) left() {
	limit := w.limit()
	if n := w.open.Add(-1); limit > 0 && n < limit {
		w.stirRoom()
	}
}

func (w *Worker) stirRoom() {
	w.room.mu.Lock()
	defer w.room.mu.Unlock()
	if w.room.freed != nil {
		close(w.room.freed)
		w.room.freed = nil
	}
}
