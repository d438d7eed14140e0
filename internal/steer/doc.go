// Package steer leads the connections of a group of SO_REUSEPORT sockets to the
// worker that is ready and has the fewest.
//
// A group is one address. It has a member a worker slot: a socket which the master
// made and keeps, and which the worker of the slot accepts from.
//
//	                  ┌▶ member 0 ──▶ worker ──┐ accepted, closed
//	SYN ─▶ program ───┼▶ member 1 ──▶ worker ──┤
//	       picks      └▶ member 2 (resting)    │
//	         ▲ load = picked - base - closed   ▼
//	         └───────────────────────────── page, one a worker
//
// # The two modes
//
// Steered: an eBPF program (BPF_PROG_TYPE_SK_REUSEPORT) looks at the members that
// are ready and takes the one with the smallest load. It counts at the pick, not
// when the worker accepts: a stopped worker, whose own count stands still, would
// be sent everything. The worker subtracts, in a page of its own, which is an
// array of one element in the kernel that it maps. It can write nothing but its
// own two numbers, and what is absurd in them makes it the last to be taken.
//
// Hash: the kernel's own hash of addresses and ports, and while some members rest,
// a classic filter, which needs no privilege, that passes over them. This is also
// the mode of datagram sockets, in which each packet is picked for: there a flow
// stays with its member, also when others begin to rest and come back.
//
// Pages, calls and their order are the same in both modes.
//
// # Privilege
//
// Tried on Linux 6.18 with kernel.unprivileged_bpf_disabled = 2: maps and program
// need CAP_BPF and nothing else (not CAP_NET_ADMIN, CAP_PERFMON or CAP_SYS_ADMIN).
// To attach needs nothing. Linux before 5.11 charges maps to RLIMIT_MEMLOCK, and
// before 5.8, where CAP_BPF is new, CAP_SYS_ADMIN is needed.
//
// What a worker may do with its page: map it, and read and write these two numbers
// by bpf(2) as well. It finds no other page from there.
//
// # Drift
//
// A pick is no connection yet. Some handshakes never end, a predecessor that still
// holds the socket accepts some, and both would stay in the load for ever. A
// counter cannot tell them from what waits in the queue of a slow worker, but the
// kernel can: [Group.Settle] compares with the length of the accept queue.
//
// # What it does not know
//
// It binds and listens on nothing, starts nobody, has no clock and no goroutine,
// and does not know what a worker is. The caller says who is ready.
package steer
