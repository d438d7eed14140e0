package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"

	"github.com/f72e338e/supervisord/internal/proto"
)

// ListenConfig says where and how a [Server] listens. At most one of Path, Name,
// Listener, Server and File may be set; with none of them it is Host and Port.
// The zero value is a port of the kernel's choice on every address.
type ListenConfig struct {
	Network string // "tcp" (the default), "tcp4", "tcp6"; with a Path "unix" (the default), "unixpacket"
	Host    string // name or address; "": every address, IPv6 and IPv4, or IPv4 alone where there is no IPv6
	Port    int    // 0 to 65535; 0: of the kernel's choice, the same in every worker
	Path    string // of a Unix socket; "@name": an abstract one

	Name     string       // a configured listener of the pool
	Listener net.Listener // taken: it is closed with the server, and also on an error
	Server   *Server      // another server that listens: both accept from one socket
	File     *os.File     // a socket, borrowed; see ListenFD

	Backlog     int    // see [Backlog]; 0: 511
	Policy      string // see [Policy]
	Exclusive   bool   // see [Exclusive]
	IPv6Only    bool   // see [IPv6Only]
	ReusePort   bool   // see [ReusePort]
	ReadableAll bool   // see [ReadableAll]
	WritableAll bool   // see [WritableAll]
	Mode        *fs.FileMode
}

// Listen listens on an address as [Worker.Listen] has it: "host:port", or with
// the networks "unix" and "unixpacket" a path. It returns once the server
// listens, or with an error, after which the server may listen again at once.
//
// The end of ctx is a Stop of the server, also long after Listen has returned:
// connections stay. Should it end before the server listens, OnClose is called
// and OnListening is not.
//
// Errors: ErrAlreadyListening and ErrBadListen, *net.AddrError, of which no
// callback hears; ErrServerClosed, ctx's; ErrDraining; those of Worker.Listen and
// Join, which OnError hears too. errors.Is(err, syscall.EADDRINUSE) and the like
// hold.
func (s *Server) Listen(ctx context.Context, network, address string, opts ...ListenOption) error {
	return s.listenAddress(ctx, network, address, listening(opts))
}

// ListenName is Listen on a listener that is configured for the pool.
func (s *Server) ListenName(ctx context.Context, name string, opts ...ListenOption) error {
	return s.listen(ctx, func(ctx context.Context, w *Worker) (place, error) {
		l, err := w.ListenName(ctx, name, opts...)
		return place{l: l, shared: true}, err
	})
}

// ListenOn is Listen on a listener that exists, of any kind. It is taken: closed
// with the server, and on an error too. Of one that the net package made or this
// one, nothing changes on the path of a connection; of others (TLS) the
// connections are counted here. It works also where a supervisor knows nothing of
// the listener, and other workers have no part in it.
func (s *Server) ListenOn(ctx context.Context, l net.Listener) error {
	err := s.listen(ctx, func(_ context.Context, w *Worker) (place, error) {
		switch in := l.(type) {
		case *net.TCPListener, *net.UnixListener:
			own, err := newListener(w, in, func() {})
			return place{l: own}, err
		}
		return place{l: l}, nil
	})
	if err != nil {
		_ = l.Close()
	}
	return err
}

// ListenServer is Listen on the socket of another server, which must listen.
// Each has a descriptor of its own: both accept, and closing one does not end the
// other. Errors: ErrServerNotRunning when other does not listen; ErrBadListen, and
// errors.ErrUnsupported, when its listener is foreign or the supervisor accepts for
// it (round_robin and its like). No callback hears of these. errors.ErrUnsupported
// alone when the system cannot.
func (s *Server) ListenServer(ctx context.Context, other *Server) error {
	return s.listen(ctx, func(_ context.Context, w *Worker) (place, error) {
		other.mu.Lock()
		defer other.mu.Unlock()
		switch {
		case other.period == nil:
			return place{}, ErrServerNotRunning
		case other.period.own == nil || other.period.own.hand != nil:
			return place{}, fmt.Errorf("%w: the listener of another server cannot be shared: %w", ErrBadListen, errors.ErrUnsupported)
		}
		inner, err := other.period.own.dup()
		if err != nil {
			return place{}, err
		}
		own, err := newListener(w, inner, func() {})
		return place{l: own, addr: other.addr}, err
	})
}

// ListenFD is Listen on a socket of this process by its number, as a service
// manager passes it. The descriptor is borrowed: the server works on a copy. The
// socket becomes non-blocking, for everybody who has it, and listens with the
// Backlog when it did not. Errors: the errno, such as EBADF, ENOTSOCK and EINVAL.
func (s *Server) ListenFD(ctx context.Context, fd uintptr, opts ...ListenOption) error {
	return s.listenFD(ctx, fd, listening(opts).backlog)
}

func (s *Server) listenFD(ctx context.Context, fd uintptr, backlog int) error {
	return s.listen(ctx, func(_ context.Context, w *Worker) (place, error) {
		inner, err := adopt(fd, backlog)
		if err != nil {
			return place{}, fmt.Errorf("cannot listen on descriptor %d: %w", fd, err)
		}
		own, err := newListener(w, inner, func() {})
		return place{l: own}, err
	})
}

// ListenWith is Listen with everything in one struct. Errors: as Listen, or the
// method that it stands for; ErrBadListen when c contradicts itself.
func (s *Server) ListenWith(ctx context.Context, c ListenConfig) error {
	o := listenOptions{backlog: c.Backlog, exclusive: c.Exclusive, ipv6Only: c.IPv6Only, reusePort: c.ReusePort, policy: c.Policy,
		readableAll: c.ReadableAll, writableAll: c.WritableAll}
	if c.Mode != nil {
		Mode(*c.Mode)(&o)
	}
	err := c.check()
	switch {
	case err != nil:
		if c.Listener != nil {
			_ = c.Listener.Close()
		}
		return err
	case c.Listener != nil:
		return s.ListenOn(ctx, c.Listener)
	case c.Server != nil:
		return s.ListenServer(ctx, c.Server)
	case c.Name != "":
		return s.ListenName(ctx, c.Name, Backlog(c.Backlog))
	case c.File != nil:
		raw, err := c.File.SyscallConn()
		if err != nil {
			return err
		}
		// Not File.Fd, which makes the socket blocking for all who have it.
		var lerr error
		if err := raw.Control(func(fd uintptr) { lerr = s.listenFD(ctx, fd, c.Backlog) }); err != nil {
			return err
		}
		return lerr
	case c.Path != "":
		network := c.Network
		if network == "" {
			network = "unix"
		}
		return s.listenAddress(ctx, network, c.Path, o)
	}
	network := c.Network
	if network == "" {
		network = "tcp"
	}
	return s.listenAddress(ctx, network, net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), o)
}

// check returns ErrBadListen for what contradicts itself. The reference takes the
// first of several places and is silent about the rest.
func (c ListenConfig) check() error {
	places := 0
	for _, set := range []bool{c.Path != "", c.Name != "", c.Listener != nil, c.Server != nil, c.File != nil, c.Host != "" || c.Port != 0} {
		if set {
			places++
		}
	}
	isUnix := proto.IsUnix(c.Network)
	switch {
	case places > 1:
		return fmt.Errorf("%w: more than one of address, Path, Name, Listener, Server and File is set", ErrBadListen)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("%w: port %d is not 0 to 65535", ErrBadListen, c.Port)
	case isUnix && c.Path == "", !isUnix && c.Path != "" && c.Network != "":
		return fmt.Errorf("%w: network %q does not go with the address", ErrBadListen, c.Network)
	}
	return nil
}

func (s *Server) listenAddress(ctx context.Context, network, address string, o listenOptions) error {
	if !proto.KnownNetwork(network) || proto.IsDatagram(network) {
		return fmt.Errorf("%w: %w", ErrBadListen, net.UnknownNetworkError(network))
	}
	isUnix := proto.IsUnix(network)
	if isUnix && address == "" {
		return fmt.Errorf("%w: the path is empty", ErrBadListen)
	}
	isAbstract := isUnix && (address[0] == '@' || address[0] == 0)
	if isAbstract && (o.readableAll || o.writableAll || o.mode != nil) {
		return fmt.Errorf("%w: an abstract name has no mode", ErrBadListen)
	}
	return s.listen(ctx, func(ctx context.Context, w *Worker) (place, error) {
		asked := address
		if isAbstract { // the reference writes a zero byte for "@"
			asked = "@" + address[1:]
		}
		l, err := w.Listen(ctx, network, asked, func(all *listenOptions) { *all = o })
		p := place{l: l, shared: !o.exclusive && !o.reusePort}
		if isUnix {
			p.addr = &net.UnixAddr{Name: address, Net: network}
		}
		return p, err
	})
}
