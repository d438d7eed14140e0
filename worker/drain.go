package worker

import (
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Draining is closed when the worker shall accept no more, finish what is open
// and exit: the supervisor said so, the program did (see Drain), or the
// supervisor is gone for good.
func (w *Worker) Draining() <-chan struct{} { return w.drainc }

// DrainDeadline is when a draining worker is ended by force; zero as long as it
// does not drain. It may move while the drain goes on.
func (w *Worker) DrainDeadline() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deadline
}

// DrainReason says why the worker drains, "" as long as it does not.
func (w *Worker) DrainReason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// Drain begins to drain by the worker's own will. The supervisor is told, and
// starts a successor. It does not block, and does nothing when the worker drains
// already.
func (w *Worker) Drain(reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != proto.StateDraining {
		w.startDrain(reason, time.Now().Add(w.options.graceful))
	}
}

// told is a drain that the supervisor orders: its deadline replaces any other.
func (w *Worker) told(m proto.Drain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startDrain(m.Reason, time.Now().Add(time.Duration(m.DeadlineMS)*time.Millisecond))
}

// hurry lets a drain that is under way end now.
func (w *Worker) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == proto.StateDraining {
		w.setDeadline(time.Now())
	}
}

// startDrain begins a drain or gives one a new deadline; mu is held.
func (w *Worker) startDrain(reason string, deadline time.Time) {
	w.setDeadline(deadline)
	if w.state == proto.StateDraining {
		return
	}
	w.state, w.reason = proto.StateDraining, reason
	w.push(outgoing{e: proto.Envelope{Body: proto.Draining{Reason: reason}}})
	close(w.drainc)
}

func (w *Worker) setDeadline(t time.Time) {
	w.deadline = t
	close(w.moved)
	w.moved = make(chan struct{})
}

// bound returns the deadline of the drain, or own when the worker does not
// drain, and a channel that is closed when the answer changes.
func (w *Worker) bound(own time.Time) (time.Time, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == proto.StateDraining {
		return w.deadline, w.moved
	}
	return own, w.moved
}
