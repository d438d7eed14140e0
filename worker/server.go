package worker

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrAlreadyListening means that a [Server] listens, or that another Listen of
	// it is under way. After an error or a Close it may listen again.
	ErrAlreadyListening = errors.New("worker: the server listens already")
	// ErrServerNotRunning means a Close or Stop of a [Server] that does not listen.
	ErrServerNotRunning = errors.New("worker: the server does not listen")
	// ErrServerClosed is what Listen returns when a Close or Stop came first.
	ErrServerClosed = errors.New("worker: the server was closed before it listened")
	// ErrBadListen means that Listen was asked for something impossible, such as
	// two places at once. No callback hears of it.
	ErrBadListen = errors.New("worker: cannot listen on that")
)

// Setting is an option whose default is not ours to choose.
type Setting int8

// Values of a Setting. Default leaves what the net package does.
const (
	Default Setting = iota
	On
	Off
)

// ServerOptions are the options of a [Server]. The zero value of each is its
// default. Later changes to the struct have no effect.
//
// The callbacks are the events of the reference (node:net), in its order:
//
//	Listening ──▶ Connection | Drop | Error (of accept) … ──▶ Close
//	Error (of a Listen: nothing was opened, no Close follows)
//
// Each Listening has its Close, after the last connection of its time; when the
// server listens again before that, the next Listening comes first.
//
// A server calls them one at a time, on a goroutine of its own and never on the
// caller's, so the order is the one seen; different servers do not wait for each
// other. Nothing is accepted before OnListening has returned, nor while
// OnConnection, OnDrop or OnError runs: a slow callback slows accepting. A
// callback may call any method but those that wait for the server: Close,
// Shutdown and Worker.Wait (Stop does not wait). A panic in one is a panic of the program.
type ServerOptions struct {
	// Worker is whom the server listens through; nil means the one of this
	// process, joined by the first Listen.
	Worker *Worker

	// AllowHalfOpen leaves a Socket open for writing when the peer has finished:
	// the application closes it. Else it is closed by itself once the end was
	// read and a write that is under way is done, and later writes fail with EPIPE.
	AllowHalfOpen bool
	// ReadBufferSize is how many bytes are read ahead for a Socket, at most: small
	// reads then cost fewer system calls. 0 and less: none, and what the
	// application does not read stays in the kernel.
	ReadBufferSize int
	// PauseOnConnect lets a Socket begin paused: no byte is read before its Resume.
	// Until then it can be given to another worker, see [Socket.PassOn].
	PauseOnConnect bool
	// NoDelay sets TCP_NODELAY on each connection; by default the net package
	// turns it on.
	NoDelay Setting
	// KeepAlive sets SO_KEEPALIVE on each connection; by default the net package
	// turns it on, with the first probe after 15 s.
	KeepAlive Setting
	// KeepAliveInitialDelay is how long a connection with KeepAlive On is idle
	// before the first probe, in whole seconds (TCP_KEEPIDLE); then there is one a
	// second, ten in all. Less than a second: as by Default.
	KeepAliveInitialDelay time.Duration

	// BlockList names peers whose connections are closed at once, unseen. It may
	// be changed while the server runs. nil blocks none.
	BlockList *BlockList
	// MaxConnections is how many connections may be open at once; 0 means any
	// number, a negative one none. See SetMaxConnections.
	MaxConnections int
	// DropMaxConnections drops what comes beyond MaxConnections also where other
	// workers could take it; see SetMaxConnections.
	DropMaxConnections bool

	OnListening  func()
	OnConnection func(*Socket) // before its handler starts
	OnDrop       func(Drop)
	OnError      func(error) // what Listen returns too, or an error of accept(2)
	OnClose      func()      // not listening, and the last connection has ended
}

// Drop is a connection that was closed because of MaxConnections. A peer at a
// Unix socket has no address to speak of.
type Drop struct{ LocalAddr, RemoteAddr net.Addr }

// Server accepts connections as the reference's net.Server does: it shares its
// socket with the other workers, limits and counts its connections, and drains
// with its worker. docs/net-server.md compares the two, line by line.
//
//	srv := worker.NewServer(worker.ServerOptions{}, func(c *worker.Socket) {
//		_, _ = io.Copy(c, c)
//	})
//	if err := srv.Listen(ctx, "tcp", ":8124"); err != nil { ... }
//	return w.Run(ctx)
//
// While it listens it has two goroutines: one accepts, one waits for the worker's
// drain. Both end with the listening. All methods may be called from any
// goroutine.
type Server struct {
	options ServerOptions
	handler func(*Socket)
	events  events
	limit   atomic.Int64
	open    atomic.Int64
	freed   chan struct{} // capacity 1: perhaps there is room again

	mu      sync.Mutex // everything below; taken before Worker.mu
	w       *Worker    // once known
	asking  context.CancelCauseFunc
	period  *period // nil unless listening
	periods int     // that are not over
	telling int     // calls of OnClose that have not returned
	addr    net.Addr
	unref   bool
}

// period is a server's time from one Listen to the Close, and to the end of the
// last connection of that time. The next one may begin before it is over.
type period struct {
	w        *Worker
	l        net.Listener
	own      *listener     // the same, nil for one that is foreign
	yields   bool          // other workers take what this one leaves
	forget   func() bool   // of the context
	open     atomic.Int64  // connections
	stopping chan struct{} // closed when nothing more is accepted
	closed   chan struct{} // closed when all is over and OnClose has returned
	deaf     bool          // the accept loop has ended; Server.mu
	over     bool          // Server.mu
}

// NewServer returns a server that does not listen yet. The handler is run for
// each connection on a goroutine of its own, and the Socket is closed when it
// returns. With a nil handler the Sockets are OnConnection's to close.
func NewServer(o ServerOptions, handler func(*Socket)) *Server {
	s := &Server{options: o, handler: handler, freed: make(chan struct{}, 1)}
	s.limit.Store(int64(o.MaxConnections))
	return s
}

// IsListening reports whether the server has a socket: false from the very
// moment of a Close.
func (s *Server) IsListening() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.period != nil
}

// Addr is where the server listens, nil when it does not. That of a Unix socket
// is the path as it was given, and stays after the close.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, isUnix := s.addr.(*net.UnixAddr); s.period == nil && !isUnix {
		return nil
	}
	return s.addr
}

// Connections is how many connections of this server are open in this process,
// those from before a Close included.
func (s *Server) Connections() int { return int(s.open.Load()) }

// ClusterConnections asks all workers of the pool how many connections they hold,
// of whatever server; see [Worker.Connections], which it is. Errors: as there,
// and ErrServerNotRunning before the first Listen of a server without Worker.
func (s *Server) ClusterConnections(ctx context.Context) (Conns, error) {
	s.mu.Lock()
	w := s.w
	s.mu.Unlock()
	if w == nil {
		w = s.options.Worker
	}
	if w == nil {
		return Conns{}, ErrServerNotRunning
	}
	return w.Connections(ctx)
}

// SetMaxConnections changes MaxConnections. Connections that are open stay.
//
// What comes beyond it is accepted, closed, and told to OnDrop. A supervised
// server whose socket other workers share leaves it in the accept queue instead,
// for the others or until there is room again, unless DropMaxConnections is set.
// Such a server may end up with one connection more than a limit that is lowered
// while it accepts.
func (s *Server) SetMaxConnections(n int) {
	s.limit.Store(int64(n))
	s.poke()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.period != nil && s.period.yields {
		_ = s.period.own.SetDeadline(time.Unix(1, 0)) // the accept loop looks again
	}
}

// Ref undoes Unref, and returns the server.
func (s *Server) Ref() *Server { return s.refer(false) }

// Unref lets [Worker.Wait] and [Worker.Run] return although the server listens;
// it goes on until the program ends. Its connections keep them waiting all the
// same. It returns the server, and counts before a Listen too.
func (s *Server) Unref() *Server { return s.refer(true) }

func (s *Server) refer(unref bool) *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unref = unref
	s.stir()
	return s
}

// poke lets the accept loop see whether there is room; it does not block.
func (s *Server) poke() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}
