package worker

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

const (
	// countsEvery is the shortest time between two counts that nobody asked for.
	countsEvery = 250 * time.Millisecond
	// maxReplies is how many answers may wait for a supervisor that asks and
	// does not read; more are dropped.
	maxReplies = 64
)

// outgoing is an entry of the writer's queue. The queue is bounded by what makes
// entries: a request has a caller that waits, a close a handle that was granted,
// answers are dropped beyond maxReplies, and ready, draining and status are
// there once at most.
type outgoing struct {
	e     proto.Envelope
	file  *fdpass.File // goes along; owned
	reply bool
	sent  chan<- struct{} // when set, a mark: closed once everything before it was sent
}

// push adds to the writer's queue; mu is held.
func (w *Worker) push(o outgoing) {
	if w.conn == nil || w.closed || w.err != nil {
		_ = o.file.Close()
		if o.sent != nil {
			close(o.sent)
		}
		return
	}
	w.queue = append(w.queue, o)
	w.poke()
}

// poke wakes the writer; it does not block.
func (w *Worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// reply queues an answer to the supervisor.
func (w *Worker) reply(e proto.Envelope) {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := 0
	for i := range w.queue {
		if w.queue[i].reply {
			waiting++
		}
	}
	if waiting < maxReplies {
		w.push(outgoing{e: e, reply: true})
	}
}

// queueDrop empties the queue of a link that ended; mu is held.
func (w *Worker) queueDrop() {
	for _, o := range w.queue {
		_ = o.file.Close()
		if o.sent != nil {
			close(o.sent)
		}
	}
	w.queue = nil
}

// flush waits until what was said so far has reached the kernel.
func (w *Worker) flush(ctx context.Context) {
	sent := make(chan struct{})
	w.mu.Lock()
	w.push(outgoing{sent: sent})
	w.mu.Unlock()
	select {
	case <-sent:
	case <-ctx.Done():
	}
}

// counts returns the worker's counts of this moment.
func (w *Worker) counts() proto.Counts {
	return proto.Counts{Connections: w.open.Load(), Accepted: w.accepted.Load()}
}

// changed notes that the counts changed. It is on the path of each connection:
// one load, and one wake-up of the writer in countsEvery.
func (w *Worker) changed() {
	if !w.dirty.Load() && !w.dirty.Swap(true) && w.conn != nil {
		w.poke()
	}
}

// write is the only goroutine that sends. It may wait for a supervisor that does
// not read; nobody waits for it.
func (w *Worker) write() {
	defer close(w.written)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var told proto.Counts
	var toldAt time.Time
	for {
		o, ok, end := w.next()
		switch {
		case end:
			return
		case ok:
			if !w.transmit(o) {
				return
			}
			continue
		}
		if w.dirty.Load() {
			wait := countsEvery - time.Since(toldAt)
			if wait <= 0 {
				w.dirty.Store(false)
				if c := w.counts(); c != told {
					told, toldAt = c, time.Now()
					if !w.transmit(outgoing{e: proto.Envelope{Body: c}}) {
						return
					}
				}
				continue
			}
			timer.Reset(wait)
		}
		select {
		case <-w.wake:
		case <-timer.C:
		case <-w.lost:
			return
		}
	}
}

// next takes the head of the queue; end is set when the worker was closed and
// nothing is left.
func (w *Worker) next() (o outgoing, ok, end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return outgoing{}, false, w.closed
	}
	o = w.queue[0]
	w.queue = w.queue[1:]
	if r := w.pending[o.e.ID]; r != nil {
		r.sent = true
	}
	return o, true, false
}

// transmit sends one entry and reports whether the link goes on.
func (w *Worker) transmit(o outgoing) bool {
	if o.sent != nil {
		close(o.sent)
		return true
	}
	if o.file != nil {
		return w.transmitFile(o)
	}
	err := w.conn.Send(o.e)
	if errors.Is(err, proto.ErrTooLarge) {
		w.answer(o.e.ID, answer{err: err})
		return true
	}
	return err == nil // the reader sees the end of the link too, and says why
}

// transmitFile sends a pass. That the kernel has too many descriptors on their way
// fails this request, not the link.
func (w *Worker) transmitFile(o outgoing) bool {
	err := w.conn.Send(o.e, o.file)
	_ = o.file.Close()
	for _, errno := range []syscall.Errno{syscall.ETOOMANYREFS, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if r := w.pending[o.e.ID]; r != nil {
				delete(w.pending, o.e.ID)
				r.sent = false
				r.answer <- answer{err: err}
			}
			return true
		}
	}
	return err == nil
}
