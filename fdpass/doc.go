// Package fdpass sends and receives messages together with open files over a
// Unix socket of type SOCK_SEQPACKET.
//
// One [Conn.Send] is one packet; one [Conn.Recv] returns one packet and the
// files that came with it (unix(7), SCM_RIGHTS). The package knows no message
// format and keeps no state beside the socket.
//
// # Ownership
//
// A descriptor has one owner, a [File]. Send borrows the files it is given: the
// kernel makes its own references, and the caller still closes its own. Recv
// gives the files away: whoever receives them closes them. A packet that breaks
// a limit is reported as an error and every file in it is closed by Recv.
//
// Descriptors are close-on-exec from birth (MSG_CMSG_CLOEXEC, F_DUPFD_CLOEXEC).
// Nothing here sets or clears O_NONBLOCK on a file that is passed: the flag
// belongs to the open file, which other processes share.
//
// # Example
//
//	a, b, err := fdpass.Pair()
//	...
//	err = a.Send([]byte("here it is"), listener)
//	n, files, err := b.Recv(buf, 1)
//
// On systems other than Linux every constructor returns [ErrNotSupported].
package fdpass
