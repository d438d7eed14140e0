package worker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// Listen returns a listener of a stream socket: network "tcp", "tcp4", "tcp6",
// "unix" or "unixpacket". The address is "host:port", where no host means every
// address and port 0 one that the kernel chooses (the same for the i-th such
// listen of every worker), a path, or "@name" for an abstract socket. A name is
// resolved here, and its first IPv4 address preferred. Every worker that asks
// for an address gets the same socket, unless Exclusive.
//
// Connections of the listener are counted. Its Close gives the socket back.
//
// Errors: *Error (EADDRINUSE also for an address this worker holds already,
// EACCES, ...), those of bind(2) when stand-alone; *net.AddrError, *net.DNSError;
// ErrLost, ErrClosed, ctx's. The context is not used once Listen has returned.
func (w *Worker) Listen(ctx context.Context, network, address string, opts ...ListenOption) (net.Listener, error) {
	if !proto.KnownNetwork(network) || proto.IsDatagram(network) {
		return nil, net.UnknownNetworkError(network)
	}
	o := listening(opts)
	if o.policy != "" && !slices.Contains(proto.Policies, o.policy) {
		return nil, fmt.Errorf("unknown policy %q (%s): %w", o.policy, strings.Join(proto.Policies, ", "), syscall.EINVAL)
	}
	if w.conn == nil || o.reusePort {
		return w.listenAlone(ctx, network, address, o)
	}
	m, err := spec(ctx, network, address, o)
	if err != nil {
		return nil, err
	}
	return w.listen(ctx, m)
}

// ListenName returns a listener that is configured for the pool by its name; of
// the options only Backlog counts. Errors: as Listen; ErrStandAlone.
func (w *Worker) ListenName(ctx context.Context, name string, opts ...ListenOption) (net.Listener, error) {
	if w.conn == nil {
		return nil, fmt.Errorf("cannot listen on %q: %w, so no listener is configured", name, ErrStandAlone)
	}
	return w.listen(ctx, proto.Listen{Name: name, Backlog: listening(opts).backlog})
}

// ListenPacket is Listen for datagrams: network "udp", "udp4", "udp6" or
// "unixgram". The result embeds a *net.UDPConn or *net.UnixConn. A datagram
// socket is always shared, or one of the slot's own where the listener's policy is
// reuse_port, and each datagram goes to one of its holders. A worker that drains
// should read on for a moment, say 50 ms, before it closes a socket of its own:
// what is in its queue is for nobody else.
func (w *Worker) ListenPacket(ctx context.Context, network, address string, opts ...ListenOption) (net.PacketConn, error) {
	if !proto.IsDatagram(network) {
		return nil, net.UnknownNetworkError(network)
	}
	if w.conn == nil {
		return listenPacketAlone(ctx, network, address, listening(opts))
	}
	m, err := spec(ctx, network, address, listening(opts))
	if err != nil {
		return nil, err
	}
	a, err := w.ask(ctx, m)
	if err != nil {
		return nil, err
	}
	handle := a.body.(proto.Grant).Handle
	pc, err := filePacketConn(a.file)
	if err != nil {
		w.tellClosed(handle)
		return nil, fmt.Errorf("cannot use the socket granted for %s %s: %w", network, address, err)
	}
	return packet(pc, func() { w.tellClosed(handle) }), nil
}

func (w *Worker) listen(ctx context.Context, m proto.Listen) (net.Listener, error) {
	a, err := w.ask(ctx, m)
	if err != nil {
		return nil, err
	}
	g := a.body.(proto.Grant)
	l, err := w.granted(a, g)
	if err != nil {
		w.tellClosed(g.Handle)
		return nil, fmt.Errorf("cannot use the socket granted for %s %s: %w", g.Network, g.Address, err)
	}
	l.handle = g.Handle
	w.keep(g.Handle, l)
	return l, nil
}

// granted makes a listener of what came with a grant.
func (w *Worker) granted(a answer, g proto.Grant) (*listener, error) {
	given := func() { w.tellClosed(g.Handle) }
	if g.Policy != "" && g.Sockets == 0 {
		inner, err := newChannel(a.file, a.page, g)
		if err != nil {
			return nil, err
		}
		return newListener(w, inner, given)
	}
	var page *memberPage
	if g.Sockets > 0 {
		var err error
		if page, err = newMemberPage(a.page); err != nil {
			_ = a.file.Close()
			fdpass.CloseAll(a.more)
			return nil, err
		}
	}
	inner, err := fileListener(a.file)
	if err != nil {
		fdpass.CloseAll(a.more)
		return nil, err
	}
	l, err := newListener(w, inner, given)
	if err != nil {
		fdpass.CloseAll(a.more)
		return nil, err
	}
	l.page, l.turn = page, newTurnstile(l)
	l.options = acceptOptions{noDelay: g.NoDelay, keepAlive: g.KeepAlive}
	for i, f := range a.more {
		number := i + 1
		if number < len(g.Numbers) {
			number = g.Numbers[number]
		}
		l.addSpare(number, f)
	}
	return l, nil
}

// spec makes the request for an address as people write it.
func spec(ctx context.Context, network, address string, o listenOptions) (proto.Listen, error) {
	m := proto.Listen{Network: network, Backlog: o.backlog, Exclusive: o.exclusive, IPv6Only: o.ipv6Only, Policy: o.policy,
		Mode: o.mode, ReadableAll: o.readableAll, WritableAll: o.writableAll}
	if proto.IsUnix(network) {
		m.Address = address
		return m, nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return m, err
	}
	if m.Port, err = net.DefaultResolver.LookupPort(ctx, network, service); err != nil {
		return m, err
	}
	m.Address, err = resolve(ctx, network, host)
	return m, err
}

// resolve returns an IP literal, or "" for every address.
func resolve(ctx context.Context, network, host string) (string, error) {
	if host == "" {
		return "", nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	family := "ip"
	switch network[len(network)-1] {
	case '4', '6':
		family += network[len(network)-1:]
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return a.Unmap().String(), nil
		}
	}
	return addrs[0].String(), nil
}

// timeoutMS is how long the supervisor may wait so that its answer comes in time.
func timeoutMS(ctx context.Context) int64 {
	t, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, (time.Until(t) * 9 / 10).Milliseconds())
}
