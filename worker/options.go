package worker

import (
	"io/fs"
	"time"
)

// Defaults of the options of the same name.
const (
	DefaultIdleGrace       = 5 * time.Second
	DefaultGracefulTimeout = 30 * time.Second
)

// Option is what [Serve] takes: a [JoinOption] or a [ListenOption].
type Option interface{ apply(*options) }

// JoinOption sets something of the whole Worker.
type JoinOption func(*joinOptions)

// ListenOption sets something of one socket.
type ListenOption func(*listenOptions)

type options struct {
	join   []JoinOption
	listen []ListenOption
}

func (o JoinOption) apply(all *options)   { all.join = append(all.join, o) }
func (o ListenOption) apply(all *options) { all.listen = append(all.listen, o) }

type joinOptions struct {
	client    string
	idleGrace time.Duration
	graceful  time.Duration
}

type listenOptions struct {
	backlog                  int
	exclusive, ipv6Only      bool
	reusePort                bool
	policy                   string
	mode                     *uint32
	readableAll, writableAll bool
}

// Client names the program for humans, as the supervisor shows it. It counts
// only in the first Join of a process. The default is "go".
func Client(name string) JoinOption { return func(o *joinOptions) { o.client = name } }

// IdleGrace is how long a draining HTTP server keeps connections without a
// request open, so that a client which sends at that moment gets an answer.
// Default 5 s; 0 closes them at once.
func IdleGrace(d time.Duration) JoinOption { return func(o *joinOptions) { o.idleGrace = d } }

// GracefulTimeout bounds a drain for which the supervisor set no deadline:
// stand-alone, begun by the program itself, or with the supervisor gone.
// Default 30 s.
func GracefulTimeout(d time.Duration) JoinOption { return func(o *joinOptions) { o.graceful = d } }

// Backlog is the length of the accept queue (listen(2)). The first worker that
// asks for a socket decides; the kernel caps it at net.core.somaxconn.
// Default 511.
func Backlog(n int) ListenOption { return func(o *listenOptions) { o.backlog = n } }

// Exclusive asks for a socket that no other slot may have. It fails with
// EADDRINUSE when the address is in use by another, and so does any request of
// others for it afterwards.
func Exclusive() ListenOption { return func(o *listenOptions) { o.exclusive = true } }

// IPv6Only keeps an IPv6 socket from taking IPv4 connections (IPV6_V6ONLY).
func IPv6Only() ListenOption { return func(o *listenOptions) { o.ipv6Only = true } }

// ReusePort makes a socket of this worker's own, which shares its port with others
// that have the option (SO_REUSEPORT, socket(7)); so it is exclusive, and the
// supervisor is not asked. Connections that wait in its queue when the worker ends
// are reset: a listener with policy = "reuse_port" is kept by the supervisor and
// has no such gap. Linux only.
func ReusePort() ListenOption { return func(o *listenOptions) { o.reusePort = true } }

// Policy says how connections reach the workers that ask for the address: "shared",
// "round_robin", "least_connections", "source_hash" or "reuse_port". The first
// worker that asks for a socket decides. Default "shared". A configured listener has
// its own.
func Policy(name string) ListenOption { return func(o *listenOptions) { o.policy = name } }

// Mode sets the permission bits of a Unix socket's path.
func Mode(perm fs.FileMode) ListenOption {
	return func(o *listenOptions) { m := uint32(perm.Perm()); o.mode = &m }
}

// ReadableAll makes a Unix socket's path readable for everybody.
func ReadableAll() ListenOption { return func(o *listenOptions) { o.readableAll = true } }

// WritableAll makes a Unix socket's path writable for everybody: who may write
// may connect (unix(7)).
func WritableAll() ListenOption { return func(o *listenOptions) { o.writableAll = true } }

func split(opts []Option) options {
	var all options
	for _, o := range opts {
		o.apply(&all)
	}
	return all
}

func listening(opts []ListenOption) listenOptions {
	var o listenOptions
	for _, f := range opts {
		f(&o)
	}
	return o
}
