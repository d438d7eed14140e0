package master

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/link"
	"github.com/f72e338e/supervisord/internal/proto"
)

const (
	// linkQueue is how many messages may wait for a worker that does not read.
	// More, and it is unresponsive. What the kernel's buffer holds comes on top.
	linkQueue = 64
	// A worker may send linkBurst messages at once and linkRate a second; beyond
	// that it is read more slowly, which only it notices.
	linkBurst = 1000
	linkRate  = 2000
	// linkGarbage is how many packets of a worker may be no message, or carry files
	// that nobody asked for. With one more it has lost the master's ear.
	linkGarbage = 16
)

// workerLink is the master's end of a worker's link. Sending belongs to the loop,
// reading to a goroutine of its own.
type workerLink struct {
	m     *Master
	id    proto.WorkerID
	conn  *fdpass.Conn
	in    *link.Conn
	ended chan struct{} // closed when everything was read
	once  sync.Once

	mu      sync.Mutex
	queue   []outgoing // waiting for a worker that does not read
	writing bool       // a goroutine empties the queue
	dead    bool
}

// outgoing is a message with the descriptors that go along; it owns the files.
type outgoing struct {
	data  []byte
	files []*fdpass.File
}

func newWorkerLink(m *Master, id proto.WorkerID, c *fdpass.Conn) *workerLink {
	return &workerLink{m: m, id: id, conn: c, in: link.New(c, 1), ended: make(chan struct{})}
}

func (l *workerLink) close() {
	l.once.Do(func() {
		l.mu.Lock()
		l.dead = true
		for _, o := range l.queue {
			fdpass.CloseAll(o.files)
		}
		l.queue = nil
		l.mu.Unlock()
		_ = l.conn.Close()
	})
}

// read posts what the worker says until its end of the link is closed.
func (l *workerLink) read() {
	defer l.m.pumps.Done()
	defer close(l.ended)
	bucket := newBucket(linkBurst, linkRate)
	bad := 0
	for {
		e, files, err := l.in.Recv()
		_, isPass := e.Body.(proto.Pass)
		if err == nil && len(files) > 0 && (!isPass || e.ID == 0) {
			fdpass.CloseAll(files)
			err = fmt.Errorf("%w: %d with %s", fdpass.ErrTooManyFiles, len(files), e.Body.Type())
		}
		switch {
		case isPass && (err == nil || errors.Is(err, fdpass.ErrFilesLost)):
			l.pass(e, files, err)
		case err == nil:
			if !l.m.post(core.Received{Worker: l.id, Envelope: e}) {
				return
			}
		case link.IsProtocol(err):
			if !errors.Is(err, proto.ErrUnknownMessage) { // which a newer worker may send
				bad++
			}
			if bad > linkGarbage {
				l.m.post(core.LinkBroken{Worker: l.id, Cause: "sends garbage over its link: " + err.Error()})
				l.drop()
				return
			}
			l.refuse(e, err)
		default:
			if !errors.Is(err, fdpass.ErrClosed) {
				l.m.post(core.LinkClosed{Worker: l.id})
			}
			return
		}
		bucket.take(l.m.done)
	}
}

// drop reads on and throws away, so that the end of the link is seen, until it ends.
func (l *workerLink) drop() {
	bucket := newBucket(linkBurst, linkRate)
	for {
		_, files, err := l.in.Recv()
		fdpass.CloseAll(files)
		if err != nil && !link.IsProtocol(err) {
			return
		}
		bucket.take(l.m.done)
	}
}

// refuse answers a packet that is no message, when it had a number to answer to.
func (l *workerLink) refuse(e proto.Envelope, err error) {
	l.m.log.Debug("message refused", "worker", l.id, "err", err)
	if e.ID == 0 {
		return
	}
	code := proto.CodeBadMessage
	if errors.Is(err, proto.ErrUnknownMessage) {
		code = proto.CodeUnknownMessage
	}
	l.m.call(func() {
		l.m.send(core.Send{Worker: l.id, Envelope: proto.Envelope{Re: e.ID, Body: proto.Error{Code: code, Message: err.Error()}}})
	})
}

// send sends a message of the loop. It goes out at once where the worker reads,
// else it waits in a bounded queue; the loop never does.
func (m *Master) send(a core.Send) {
	if a.Handle != 0 {
		m.block(a.Handle)
	}
	p := m.workers[a.Worker]
	if _, ok := a.Envelope.Body.(proto.Count); ok && p != nil && !p.tellsCounts() {
		m.askSurvey(a.Worker, a.Envelope.ID)
		return
	}
	if p != nil && p.node != nil {
		m.sendNode(p.node, a)
		return
	}
	if p == nil || p.link == nil {
		return // it has ended; the core will hear of it
	}
	data, err := proto.Encode(a.Envelope)
	if err != nil {
		m.log.Error("message to a worker not sent", "worker", a.Worker, "err", err)
		return
	}
	if a.Handle != 0 { // nobody is to get what another one has harmed
		m.later = append(m.later, m.look(a.Handle)...)
	}
	if a.Members != nil {
		m.sendMembers(a, data)
		return
	}
	if b, ok := a.Envelope.Body.(proto.Member); ok && m.sockets[b.Handle] != nil && m.sockets[b.Handle].group != nil {
		m.sockets[b.Handle].group.do(func() { m.call(func() { m.deliver(a.Worker, data, nil) }) }) // behind the members that it sends
		return
	}
	files, done, err := m.filesFor(a)
	if err != nil {
		m.ungranted(a.Worker, a.Handle, err)
		return
	}
	defer done()
	if err := p.link.send(data, files...); err != nil {
		m.later = append(m.later, core.LinkBroken{Worker: a.Worker, Cause: "does not read its link: " + err.Error()})
		return
	}
	m.offerPassed(a)
}

var errQueueFull = errors.New("its queue is full")

// send borrows the files. The error means that the worker is unresponsive; a
// worker that is gone is no error.
func (l *workerLink) send(data []byte, files ...*fdpass.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return nil
	}
	if !l.writing {
		err := l.conn.TrySend(data, files...)
		if err == nil || !retriable(err) {
			return nil // EPIPE: its exit follows
		}
	}
	if len(l.queue) >= linkQueue {
		return errQueueFull
	}
	o := outgoing{data: data}
	for _, f := range files {
		dup, err := f.Dup()
		if err != nil {
			fdpass.CloseAll(o.files)
			return err
		}
		o.files = append(o.files, dup)
	}
	l.queue = append(l.queue, o)
	if !l.writing {
		l.writing = true
		l.m.pumps.Add(1)
		go l.write()
	}
	return nil
}

// retriable: the buffer is full, or too many descriptors are on their way to
// others (ETOOMANYREFS), or the kernel is short of memory.
func retriable(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETOOMANYREFS) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// write empties the queue, and ends with it. It waits for the worker as long as
// that lives; close wakes it.
func (l *workerLink) write() {
	defer l.m.pumps.Done()
	for {
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.writing = false
			l.mu.Unlock()
			return
		}
		o := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		err := l.conn.Send(o.data, o.files...)
		fdpass.CloseAll(o.files)
		if err != nil {
			l.close()
			return
		}
	}
}

// bucket is a token bucket.
type bucket struct {
	burst, rate float64
	tokens      float64
	last        time.Time
}

func newBucket(burst, rate float64) *bucket {
	return &bucket{burst: burst, rate: rate, tokens: burst, last: time.Now()}
}

// take takes a token, and waits for one where there is none, or for done.
func (b *bucket) take(done <-chan struct{}) { b.spend(1, done) }

// spend takes some tokens, and waits until what is lacking would have come, or for done.
// It reports whether there was something to wait for.
func (b *bucket) spend(tokens float64, done <-chan struct{}) (waited bool) {
	t := time.Now()
	b.tokens = min(b.burst, b.tokens+b.rate*t.Sub(b.last).Seconds())
	b.last = t
	b.tokens -= tokens
	if b.tokens >= 0 {
		return false
	}
	timer := time.NewTimer(time.Duration(-b.tokens / b.rate * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
	return true
}
