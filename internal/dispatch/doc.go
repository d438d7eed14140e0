// Package dispatch accepts connections on listening sockets and hands each to one
// worker: in turn, to the one with the fewest open, or by client address.
//
// # The path of a connection
//
//	kernel's accept queue
//	   │ accept4, only while a member is free to take it
//	   ▼
//	chosen member ──Handover──▶ worker        the master keeps its copy
//	   ▲                          │
//	   │ Refused, or the channel  │ Accepted: the copy is closed
//	   │ ended without a verdict  ▼
//	another member             the program
//
// A member (one worker's part in one handle) has at most one Handover without a
// verdict. A worker that has not answered is busy, and gets nothing more while
// it is; what arrives meanwhile goes to the others, or waits in the kernel and
// goes in one message as soon as somebody is free. Nobody ever reads from a
// connection here, so one that comes back is as good as new.
//
// # Who runs what
//
// One goroutine, locked to its thread, owns every socket and member. It waits in
// epoll_wait(2) of its own and makes its other system calls without telling the
// Go scheduler: none of them can block. Everything else reaches it by commands.
//
// The package knows no message but proto.Handover and proto.Verdict, no process
// and no configuration. It takes the descriptors that it is given.
package dispatch
