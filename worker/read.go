package worker

import (
	"errors"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/link"
	"github.com/f72e338e/supervisord/internal/proto"
)

// read handles what the supervisor says until the link ends. It never waits for
// anything but the link.
func (w *Worker) read() {
	for {
		e, files, err := w.conn.Recv()
		switch {
		case err == nil:
			w.receive(e, files)
		case link.IsProtocol(err):
			w.refuse(e, err)
		default:
			w.lose(err)
			return
		}
	}
}

func (w *Worker) receive(e proto.Envelope, files []*fdpass.File) {
	switch m := e.Body.(type) {
	case proto.Grant:
		w.grant(e.Re, m, files)
		return
	case proto.Member:
		w.member(m, files)
		return
	case proto.Channel:
		w.channel(m, files)
		return
	case proto.Passed:
		w.answer(e.Re, answer{body: m})
	case proto.Look:
		w.look(m.Handle)
	case proto.Welcome:
		w.welcome(e.Re, m)
	case proto.Error:
		w.fail(e.Re, m)
	case proto.Conns:
		w.answer(e.Re, answer{body: m})
	case proto.Count:
		w.reply(proto.Envelope{Re: e.ID, Body: w.counts()})
	case proto.Ping:
		w.reply(proto.Envelope{Re: e.ID, Body: proto.Pong{}})
	case proto.Drain:
		w.told(m)
	default:
		w.refuse(e, proto.ErrUnknownMessage)
	}
	fdpass.CloseAll(files)
}

// welcome takes the identity that the supervisor gives. One that was not asked
// for and has a new epoch comes from a new master: it is told everything again.
func (w *Worker) welcome(re uint64, m proto.Welcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked, again := re != 0 && re == w.helloID, m.Epoch != w.epoch
	w.identity.Store(&m)
	w.epoch = m.Epoch
	select {
	case <-w.welcomed:
	default:
		close(w.welcomed)
	}
	if again && !asked {
		w.repeat()
	}
}

// repeat replaces whatever waits to be sent by all that a new master must know:
//
//	hello {epoch, state, holds, counts}, open requests in order, ready or draining, status
//
// mu is held.
func (w *Worker) repeat() {
	old := w.queue
	w.queue = nil
	w.hello()
	ids := make([]uint64, 0, len(w.pending))
	for id := range w.pending {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		r := w.pending[id]
		if _, ok := r.body.(proto.Pass); ok {
			// Never twice: the old master may have given the connection away.
			delete(w.pending, id)
			r.answer <- answer{err: errReplaced}
			continue
		}
		w.push(outgoing{e: proto.Envelope{ID: id, Body: r.body}})
	}
	switch w.state {
	case proto.StateReady:
		w.push(outgoing{e: proto.Envelope{Body: proto.Ready{}}})
	case proto.StateDraining:
		w.push(outgoing{e: proto.Envelope{Body: proto.Draining{Reason: w.reason}}})
	}
	if w.status != "" {
		w.push(outgoing{e: proto.Envelope{Body: proto.Status{Text: w.status}}})
	}
	for _, o := range old {
		_ = o.file.Close()
		if o.sent != nil {
			w.push(o)
		}
	}
}

var errReplaced = errors.New("worker: pass: the supervisor was replaced")

// hello queues the first message to a master; mu is held.
func (w *Worker) hello() {
	w.lastID++
	w.helloID = w.lastID
	m := proto.Hello{Client: w.options.client, Epoch: w.epoch, State: w.state,
		Features: []string{proto.FeatureHandover, proto.FeatureMembers, proto.FeatureLook, proto.FeaturePass}}
	for v := proto.MinVersion; v <= proto.Version; v++ {
		m.Versions = append(m.Versions, v)
	}
	for h := range w.holds {
		m.Holds = append(m.Holds, h)
	}
	slices.Sort(m.Holds)
	c := w.counts()
	m.Counts = &c
	w.push(outgoing{e: proto.Envelope{ID: w.helloID, Body: m}})
}

// refuse deals with a message that is not understood: an error answer when it
// has an id, nothing otherwise. A grant whose file the kernel dropped fails the
// request it answers.
func (w *Worker) refuse(e proto.Envelope, err error) {
	if g, ok := e.Body.(proto.Grant); ok && errors.Is(err, fdpass.ErrFilesLost) {
		w.tellClosed(g.Handle)
		w.fail(e.Re, proto.Error{Code: "EMFILE", Errno: int(syscall.EMFILE),
			Message: "cannot receive a socket: too many open files (raise the limit nofile of the pool)"})
		return
	}
	if e.ID == 0 {
		return
	}
	m := proto.Error{Code: proto.CodeBadMessage, Message: err.Error()}
	if errors.Is(err, proto.ErrUnknownMessage) {
		m.Code = proto.CodeUnknownMessage
	}
	w.reply(proto.Envelope{Re: e.ID, Body: m})
}

// lose ends everything that hangs on the link, and begins to drain: a master
// that takes over keeps the link open, so its end means that none will come.
func (w *Worker) lose(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ErrLost
		if !errors.Is(err, io.EOF) {
			w.err = errors.Join(ErrLost, err)
		}
	}
	w.queueDrop()
	w.failPending(w.err)
	if !w.closed && w.state != proto.StateDraining {
		w.startDrain("the supervisor is gone", time.Now().Add(w.options.graceful))
	}
	close(w.lost)
}
