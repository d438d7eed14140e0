package worker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// request is a question that the supervisor has not answered yet. It is asked
// again, with the same id, when a new master takes over.
type request struct {
	body   proto.Message
	answer chan answer // capacity 1
	sent   bool        // it is out of the queue, and may be acted upon
}

type answer struct {
	body proto.Message
	file *fdpass.File   // of a grant; owned by whoever takes the answer
	page *fdpass.File   // likewise, with a policy
	more []*fdpass.File // likewise, of reuse_port
	err  error
}

// holding is what the worker has of a handle. A member or channel that comes before
// the listener is made waits for it.
type holding struct {
	l       *listener
	early   map[int]*fdpass.File // sockets beside the first, by number
	channel []*fdpass.File       // of a channel: itself and its page
}

// close closes the files of an answer that nobody wants any more.
func (a answer) close() {
	_ = a.file.Close()
	_ = a.page.Close()
	fdpass.CloseAll(a.more)
}

// ask sends a request and waits for its answer. Errors: *Error, ErrLost,
// ErrClosed, ctx's.
func (w *Worker) ask(ctx context.Context, body proto.Message) (answer, error) {
	_, a, err := w.askWith(ctx, body, nil)
	return a, err
}

// askWith is ask with a file that goes along, or nil; it is taken. sent reports
// whether the supervisor may have seen the request.
func (w *Worker) askWith(ctx context.Context, body proto.Message, file *fdpass.File) (sent bool, a answer, err error) {
	w.mu.Lock()
	if err := w.usable(); err != nil {
		w.mu.Unlock()
		_ = file.Close()
		return false, answer{}, err
	}
	w.lastID++
	id, r := w.lastID, &request{body: body, answer: make(chan answer, 1)}
	w.pending[id] = r
	w.push(outgoing{e: proto.Envelope{ID: id, Body: body}, file: file})
	w.mu.Unlock()
	select {
	case a = <-r.answer:
	case <-ctx.Done():
		a = w.abandon(id, r)
		if a.body == nil && a.err == nil {
			a.err = fmt.Errorf("worker: %s: no answer from the supervisor: %w", body.Type(), ctx.Err())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return r.sent, a, a.err
}

// abandon forgets a request, and returns its answer if that came meanwhile. What is
// granted to it all the same is given back.
func (w *Worker) abandon(id uint64, r *request) (a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending[id] == r {
		delete(w.pending, id)
		w.unqueue(id)
		return a
	}
	a = <-r.answer
	if g, ok := a.body.(proto.Grant); ok {
		a.close()
		w.release(g.Handle)
		return answer{}
	}
	return a
}

// unqueue drops a request that was not sent; mu is held.
func (w *Worker) unqueue(id uint64) {
	for i := range w.queue {
		if w.queue[i].e.ID == id {
			_ = w.queue[i].file.Close()
			w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
			return
		}
	}
}

// answer hands an answer to whoever asked; without one it is dropped.
func (w *Worker) answer(re uint64, a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.pending[re]; r != nil {
		delete(w.pending, re)
		r.answer <- a
	}
}

// fail hands an error to whoever asked. One that refuses the hello ends the join.
func (w *Worker) fail(re uint64, m proto.Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.pending[re]; r != nil {
		delete(w.pending, re)
		r.answer <- answer{err: refusal(r.body, m)}
		return
	}
	if re != 0 && re == w.helloID && w.err == nil {
		w.err = refusal(proto.Hello{}, m)
		_ = w.conn.Close() // the reader ends, and with it everything
	}
}

func (w *Worker) failPending(err error) {
	for id, r := range w.pending {
		delete(w.pending, id)
		if _, ok := r.body.(proto.Pass); ok {
			w.unqueue(id) // its caller goes on with the connection
		}
		r.answer <- answer{err: err}
	}
}

// grant takes files and hands them to whoever asked. A grant that nobody
// waits for is given back, unless it repeats one that is held.
func (w *Worker) grant(re uint64, m proto.Grant, files []*fdpass.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.pending[re]
	if r == nil {
		fdpass.CloseAll(files)
		if _, held := w.holds[m.Handle]; !held {
			w.push(outgoing{e: proto.Envelope{Body: proto.Close{Handle: m.Handle}}})
		}
		return
	}
	delete(w.pending, re)
	if _, ok := r.body.(proto.Listen); !ok || len(files) != filesOf(m) {
		fdpass.CloseAll(files)
		w.push(outgoing{e: proto.Envelope{Body: proto.Close{Handle: m.Handle}}})
		r.answer <- answer{err: fmt.Errorf("worker: %s: the supervisor answered with a grant of %d files", r.body.Type(), len(files))}
		return
	}
	w.holds[m.Handle] = &holding{}
	a := answer{body: m, file: files[0]}
	if last := len(files) - 1; last > 0 {
		a.page, a.more = files[last], files[1:last]
	}
	r.answer <- a
}

// filesOf is how many files a grant carries: the socket, or a channel and a page,
// or sockets and a page.
func filesOf(m proto.Grant) int {
	switch {
	case m.Policy == "":
		return 1
	case m.Sockets > 0:
		return min(m.Sockets, fdpass.MaxFiles) + 1
	}
	return 2
}

// member takes one more socket of a handle, or leaves one.
func (w *Worker) member(m proto.Member, files []*fdpass.File) {
	w.mu.Lock()
	h := w.holds[m.Handle]
	if h == nil || m.Gone != (len(files) == 0) || len(files) > 1 {
		w.mu.Unlock()
		fdpass.CloseAll(files)
		return
	}
	l := h.l
	if l == nil {
		_ = h.early[m.Socket].Close()
		delete(h.early, m.Socket)
		if !m.Gone {
			if h.early == nil {
				h.early = map[int]*fdpass.File{}
			}
			h.early[m.Socket] = files[0]
		}
	}
	w.mu.Unlock()
	switch {
	case l == nil:
	case m.Gone:
		l.spare.leave(m.Socket)
	default:
		l.addSpare(m.Socket, files[0])
	}
}

// keep enters the listener of a handle, so that what comes for the handle finds it.
func (w *Worker) keep(handle proto.HandleID, l *listener) {
	w.mu.Lock()
	var early map[int]*fdpass.File
	var channel []*fdpass.File
	if h := w.holds[handle]; h != nil {
		h.l, early, channel = l, h.early, h.channel
		h.early, h.channel = nil, nil
	}
	w.mu.Unlock()
	for number, f := range early {
		l.addSpare(number, f)
	}
	if channel != nil {
		l.addChannel(channel[0], channel[1])
	}
}

// look wakes whoever waits in Accept on the handle.
func (w *Worker) look(handle proto.HandleID) {
	w.mu.Lock()
	var l *listener
	if h := w.holds[handle]; h != nil {
		l = h.l
	}
	w.mu.Unlock()
	if l != nil {
		l.turn.look()
	}
}

// release tells the supervisor that a handle is held no more; mu is held.
func (w *Worker) release(h proto.HandleID) {
	if held := w.holds[h]; held != nil {
		fdpass.CloseAll(slices.Collect(maps.Values(held.early)))
		fdpass.CloseAll(held.channel)
	}
	delete(w.holds, h)
	w.push(outgoing{e: proto.Envelope{Body: proto.Close{Handle: h}}})
}

func (w *Worker) tellClosed(h proto.HandleID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release(h)
}

// WorkerConns is one worker's part of Conns.
type WorkerConns struct {
	Worker      uint64
	Slot        int
	Connections int64
}

// Conns is how many connections the pool's workers hold.
type Conns struct {
	Total   int64
	Workers []WorkerConns
	Missing []uint64 // workers that did not answer in time: Total is without them
}

// Connections asks for the counts of all workers of the pool. The supervisor
// waits for them until ctx's deadline, at most a second without one. A
// stand-alone worker answers for itself. Errors: *Error, ErrLost, ErrClosed,
// ctx's.
func (w *Worker) Connections(ctx context.Context) (Conns, error) {
	if w.conn == nil {
		n := w.open.Load()
		return Conns{Total: n, Workers: []WorkerConns{{Connections: n}}}, nil
	}
	a, err := w.ask(ctx, proto.Connections{TimeoutMS: timeoutMS(ctx)})
	if err != nil {
		return Conns{}, err
	}
	m, ok := a.body.(proto.Conns)
	if !ok {
		return Conns{}, fmt.Errorf("worker: connections: the supervisor answered with %s", a.body.Type())
	}
	c := Conns{Total: m.Total}
	for _, n := range m.Workers {
		c.Workers = append(c.Workers, WorkerConns{Worker: uint64(n.Worker), Slot: n.Slot, Connections: n.Connections})
	}
	for _, id := range m.Missing {
		c.Missing = append(c.Missing, uint64(id))
	}
	return c, nil
}
