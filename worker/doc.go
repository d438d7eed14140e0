// Package worker is what a Go program imports to run under supervisord: it asks
// the supervisor for listening sockets, says when it is ready, drains when it is
// told to, and reports how many connections it holds.
//
// The whole of it for an HTTP server:
//
//	err := worker.Serve(ctx, &http.Server{Handler: mux}, "tcp", ":8080")
//
// The same program works without a supervisor: it then binds for itself and
// drains on SIGTERM or SIGINT. That is also all there is on systems other than
// Linux.
//
// Piece by piece:
//
//	w, err := worker.Join(ctx)
//	ln, err := w.Listen(ctx, "tcp", ":8080", worker.Backlog(1024))
//	go accept(ln)
//	err = w.Ready()
//	<-w.Draining() // close ln, finish by w.DrainDeadline(), exit
//
// A server of connections rather than of HTTP, with what net.Server of Node can
// do (docs/net-server.md):
//
//	srv := worker.NewServer(worker.ServerOptions{MaxConnections: 1000}, func(c *worker.Socket) { ... })
//	err = srv.Listen(ctx, "tcp", ":8124")
//	err = w.Run(ctx) // ready, drain, wait for the connections
//
// # What it does not know
//
// Nothing here decides: who shares a socket, who is replaced when, and which
// backlog counts is the supervisor's business. docs/protocol.md describes the
// exchange; this package is one client of it.
//
// # Ownership
//
// A process has one link, so [Join] always returns the same [Worker]. A listener
// owns a descriptor of its own of a socket that other workers share: closing it
// ends nobody else's. The socket is non-blocking for all of them, and nothing
// here changes that (fcntl(2): O_NONBLOCK belongs to the open file).
//
// # Goroutines
//
// A supervised Worker has two, which end with the link: one reads it, one writes
// it. A Server that listens has two of its own. Callers never write to the link themselves, so a supervisor that does not
// read cannot stop a program that serves. At rest neither wakes up.
package worker
