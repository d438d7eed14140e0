// Package dispatch accepts connections on listening sockets and hands each to one
// worker: in turn, to the one with the fewest open, or by client address.
//
// # The path of a connection
//
//	kernel's accept queue
//	   │ accept4, only while a member is free to take it
//	   ▼
//	chosen member ──Handover──▶ channel ──read──▶ worker
//	   ▲                           │
//	   └─────── taken back ────────┘  while the worker has not read it
//
// The channel's queue says whose a connection is. A worker that reads a Handover
// has accepted what came with it; what it has not read can be read here, from a copy
// of its end of the channel, and goes to another member: when the worker has died,
// leaves or is full, and when it has had it for patience and another is free. The
// kernel gives a packet to one reader, so nothing is lost and nothing served twice,
// without a word from the worker. Nobody ever reads from a connection here, so one
// that comes back is as good as new.
//
// A member (one worker's part in one handle) has at most one Handover unread. A
// worker that has not read is busy, and gets nothing more while it is; what arrives
// meanwhile goes to the others, or waits in the kernel and goes in one message as
// soon as somebody is free. Whether a Handover was read is looked up when a
// connection is there (unix(7), SIOCOUTQ); only while one waits for somebody to be
// free does epoll tell (EPOLLOUT).
//
// # Who runs what
//
// One goroutine, locked to its thread, owns every socket and member. It waits in
// epoll_wait(2) of its own and makes its other system calls without telling the
// Go scheduler: none of them can block. What may take its time is left to other
// goroutines: to close files that workers sent, and to read back, since a worker can
// hold the lock of its end of the channel. Everything else reaches it by commands.
//
// A worker of Node's has no channel for each handle but one for all, a Peer, on which
// connections go along with lines (package nodeipc). There the worker's answer says whose
// a connection is.
//
// The package knows no message but proto.Handover, proto.Standing and those lines, no
// process and no configuration. It takes the descriptors that it is given.
package dispatch
