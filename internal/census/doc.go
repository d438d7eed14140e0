// Package census asks the kernel what workers do that tell nothing of themselves:
// which processes they are, how many connections they hold, and whether they wait
// for more.
//
//	leaders ──▶ Trees ──▶ processes ─┬─▶ Connections ──▶ a Tally for each worker
//	                                 └─▶ Accepting ────▶ "epoll", "accept", ... or ""
//	descriptors ──▶ Look ──▶ Sockets ┘
//
// # How it counts
//
// The kernel lists the connections of an address, accepted ones with their inode
// (sock_diag(7)), and /proc/PID/fd says which inodes a process has open. What is in
// both is a connection that was accepted on the socket and that the worker holds.
// A connection that waits to be accepted has no inode yet: [Socket.Queue] counts
// those.
//
// Everything is a look at what goes on meanwhile. What was accepted before
// Connections began, and is held by one process until it ends, is counted. So who
// asks whether anything is left asks for the queue first: what leaves the queue
// after that is found among the connections. Not found is what moves from a process
// that was not yet looked at to one that was.
//
// # Rights
//
// Trees needs none, but for the processes whose environment it reads. Connections
// and Accepting read the descriptors of a process, and Accepting the arguments of
// its system calls: the process must be of our user, or we have CAP_SYS_PTRACE (the
// rules are in ptrace(2), "Ptrace access mode checking"). What cannot be read is
// unknown, which is an error and never a zero.
//
// # What cannot be seen
//
//   - A worker that accepts by io_uring(7) has no thread in a call and no
//     registration that /proc shows: Accepting says that it does not wait.
//   - Connections of another network namespace than ours. A TCP connection is of
//     the namespace of its listening socket, and that it is not ours is an error. A
//     Unix connection is of the namespace of its client: one that comes from another
//     container by way of a path is not counted.
//   - A connection that was reset, which the kernel no longer lists, though its
//     descriptor be open.
//   - A descriptor that is on its way in a message (SCM_RIGHTS), or that only an
//     io_uring has registered.
//   - Calls of a 32-bit program under a 64-bit kernel, whose numbers differ.
//   - Which socket of several that share an address by SO_REUSEPORT accepted a
//     connection: see [Connections].
//
// # What it does not know
//
// It knows no worker, no pool and no message, starts nobody, changes nothing, keeps
// nothing from one call to the next and has no goroutine. Nothing here waits for a
// worker: every call ends as soon as the kernel has answered.
//
// # Ownership
//
// A [Socket] borrows its descriptor. Every descriptor that a function opens is
// closed when it returns.
//
// # Example
//
//	web, err := census.Look(fd)
//	trees, err := census.Trees([]int{first, second}, census.Orphans{})
//	waiting, err := web.Queue()
//	tallies, err := census.Connections([]census.Socket{web}, trees)
//	if t := tallies[first]; t.Err == nil {
//		fmt.Println(t.Open[0], "connections of the first worker,", waiting, "in the queue")
//	}
//	how, err := census.Accepting(web, trees[first]) // "epoll"
package census
