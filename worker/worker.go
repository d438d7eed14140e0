package worker

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/link"
	"github.com/f72e338e/supervisord/internal/proto"
)

// Environment is the variable that holds the descriptor number of the link.
const Environment = "SUPERVISORD_FD"

// closeTimeout bounds how long Close waits for a supervisor that does not read.
const closeTimeout = time.Second

// maxStatus is how much of a status line is told, in bytes.
const maxStatus = 200

// Worker is this process in the eyes of its supervisor, or a stand-alone one
// with the same methods. All methods may be called from any goroutine.
type Worker struct {
	conn     *link.Conn // nil when stand-alone
	identity atomic.Pointer[proto.Welcome]
	welcomed chan struct{} // closed at the first welcome
	lost     chan struct{} // closed when the link has ended
	wake     chan struct{} // capacity 1: the writer has something to do
	written  chan struct{} // closed when the writer ended
	drainc   chan struct{} // closed when a drain begins
	attached attached      // servers, for Wait

	open     atomic.Int64
	accepted atomic.Uint64
	dirty    atomic.Bool // counts changed since they were last told
	room     room        // for connections, under max_connections of the pool

	mu       sync.Mutex // everything below
	options  joinOptions
	err      error // why the link ended
	closed   bool
	epoch    uint64
	helloID  uint64
	lastID   uint64
	state    string
	status   string
	pending  map[uint64]*request
	holds    map[proto.HandleID]*holding
	queue    []outgoing
	reason   string // of the drain
	deadline time.Time
	moved    chan struct{} // closed and replaced when deadline changes
}

// process holds the one Worker of this process.
var process struct {
	sync.Mutex
	worker *Worker
}

// Join makes this process a worker. With SUPERVISORD_FD in the environment it
// takes that descriptor, removes the variable, and waits for the supervisor's
// welcome until ctx ends; else the Worker is a stand-alone one. A later Join
// returns the same Worker and applies its options, except Client.
//
// Errors: ctx's; ErrLost; *Error when no version is in common; a descriptor that
// is no link (ENOTSOCK, EBADF), which is left alone.
func Join(ctx context.Context, opts ...JoinOption) (*Worker, error) {
	process.Lock()
	w := process.worker
	if w == nil {
		conn, err := inherited()
		if err != nil {
			process.Unlock()
			return nil, err
		}
		w = newWorker(conn, opts)
		process.worker = w
	} else {
		w.configure(opts)
	}
	process.Unlock()
	return w.await(ctx)
}

// inherited returns the link that the environment names, or nil without one.
func inherited() (*link.Conn, error) {
	value, ok := os.LookupEnv(Environment)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("worker: %s=%q is not a descriptor number", Environment, value)
	}
	// A copy is tried first: a variable that was inherited without its
	// descriptor may name any file of this process.
	f := fdpass.NewFile(fd)
	c, err := f.Dup()
	if err != nil {
		return nil, fmt.Errorf("worker: %s=%d: %w", Environment, fd, err)
	}
	conn, err := fdpass.NewConn(c)
	if err != nil {
		return nil, fmt.Errorf("worker: %s=%d: %w", Environment, fd, err)
	}
	_ = f.Close()
	_ = os.Unsetenv(Environment)
	return link.New(conn, fdpass.MaxFiles), nil
}

// newWorker takes conn, which is nil for a stand-alone worker.
func newWorker(conn *link.Conn, opts []JoinOption) *Worker {
	w := &Worker{
		conn:     conn,
		welcomed: make(chan struct{}),
		lost:     make(chan struct{}),
		wake:     make(chan struct{}, 1),
		written:  make(chan struct{}),
		drainc:   make(chan struct{}),
		moved:    make(chan struct{}),
		state:    proto.StateStarting,
		pending:  map[uint64]*request{},
		holds:    map[proto.HandleID]*holding{},
		options:  joinOptions{client: "go", idleGrace: DefaultIdleGrace, graceful: DefaultGracefulTimeout},
	}
	w.identity.Store(&proto.Welcome{})
	w.configure(opts)
	if conn == nil {
		close(w.welcomed)
		close(w.written)
		return w
	}
	w.mu.Lock()
	w.hello()
	w.mu.Unlock()
	go w.write()
	go w.read()
	return w
}

func (w *Worker) configure(opts []JoinOption) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range opts {
		o(&w.options)
	}
}

func (w *Worker) await(ctx context.Context) (*Worker, error) {
	select {
	case <-w.welcomed:
		return w, nil
	default:
	}
	select {
	case <-w.welcomed:
		return w, nil
	case <-w.lost:
		w.mu.Lock()
		defer w.mu.Unlock()
		return nil, w.err
	case <-ctx.Done():
		return nil, fmt.Errorf("worker: no welcome from the supervisor: %w", ctx.Err())
	}
}

// Supervised reports whether the process was started by a supervisor.
func (w *Worker) Supervised() bool { return w.conn != nil }

// Pool is the name of the worker's pool, "" when stand-alone.
func (w *Worker) Pool() string { return w.identity.Load().Pool }

// Slot is the worker's stable position in its pool, from 0.
func (w *Worker) Slot() int { return w.identity.Load().Slot }

// ID is the worker's own number, never used again; 0 when stand-alone.
func (w *Worker) ID() uint64 { return uint64(w.identity.Load().Worker) }

// Generation is the pool's generation that the worker belongs to.
func (w *Worker) Generation() uint64 { return w.identity.Load().Generation }

// Endpoint is a listener that is configured for the pool.
type Endpoint struct {
	Name    string
	Network string
	Address string // as bound: "0.0.0.0:8080", "/run/web.sock"
}

// Listeners returns the configured listeners of the pool, in order; none when
// stand-alone.
func (w *Worker) Listeners() []Endpoint {
	var list []Endpoint
	for _, e := range w.identity.Load().Listeners {
		list = append(list, Endpoint(e))
	}
	return list
}

// Ready tells the supervisor that the worker serves. It does not block; saying
// it again does nothing. Errors: ErrDraining, ErrLost, ErrClosed.
func (w *Worker) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	switch w.state {
	case proto.StateDraining:
		return ErrDraining
	case proto.StateStarting:
		w.state = proto.StateReady
		w.push(outgoing{e: proto.Envelope{Body: proto.Ready{}}})
	}
	return nil
}

// Status tells the supervisor a line for humans, at most 200 bytes of it. Only
// the newest counts. It does not block. Errors: ErrLost, ErrClosed.
func (w *Worker) Status(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	w.status = text[:min(len(text), maxStatus)]
	body := proto.Status{Text: w.status}
	for i := range w.queue {
		if _, ok := w.queue[i].e.Body.(proto.Status); ok {
			w.queue[i].e.Body = body
			return nil
		}
	}
	w.push(outgoing{e: proto.Envelope{Body: body}})
	return nil
}

// Close tells the supervisor what is still to be told, waiting at most a second,
// and ends the link. It is for the end of the program: listeners stay open.
// A second Close does nothing.
func (w *Worker) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.failPending(ErrClosed)
	w.mu.Unlock()
	if w.conn == nil {
		return nil
	}
	_ = w.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	w.poke()
	<-w.written
	err := w.conn.Close()
	<-w.lost
	return err
}

// usable returns why nothing can be said any more; mu is held.
func (w *Worker) usable() error {
	if w.closed {
		return ErrClosed
	}
	return w.err
}
