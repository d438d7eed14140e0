// Package socket makes, checks and describes listening sockets: what
// proto.SocketSpec asks for becomes a descriptor, and proto.Bound says what came
// of it.
//
// It knows no handle, no worker and no policy, and keeps no state: who may ask
// for which address and who shares a socket is decided elsewhere. It imports
// nothing beyond the standard library, x/sys and our own small packages, because
// package worker binds through it when nobody supervises it.
//
// # Ownership
//
// [Bind] gives the socket away in a fdpass.File: its caller closes it, and calls
// [Unlink] with the Bound when a Unix path is to go. Everything else borrows the
// descriptor it is given. A socket made here is close-on-exec and non-blocking
// from birth; O_NONBLOCK of a socket that was passed in is never touched, because
// the flag belongs to the open file and other processes share it. No descriptor
// here is ever registered with the runtime's poller.
//
// # Example
//
//	f, bound, err := socket.Bind(proto.SocketSpec{Network: "tcp", Port: 8080})
//	if errors.Is(err, syscall.EADDRINUSE) { ... }
//	...
//	length, limit, err := socket.Queue(f.Fd())
//	...
//	_ = f.Close()
//	_ = socket.Unlink(bound)
//
// Linux only; elsewhere every function returns fdpass.ErrNotSupported.
package socket
