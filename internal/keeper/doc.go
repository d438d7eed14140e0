//go:build linux

// Package keeper is the master's parent on a machine without systemd: it holds what must
// outlive the master, and starts another one when a master dies.
//
//	keeper ──fork──▶ master ──fork──▶ workers
//	  ▲                │
//	  └── FDSTORE=1 ───┘  sockets, links, the record: files with names
//
// It speaks the service's side of sd_notify(3) over a socket pair, as systemd does over a
// path: FDSTORE, FDSTOREREMOVE and FDNAME (sd_pid_notify_with_fds(3)), BARRIER, READY,
// STOPPING and WATCHDOG. The next master gets the files as sd_listen_fds(3) says, but
// without LISTEN_PID: a keeper cannot know the number of a process before it exists.
//
// A master that says STOPPING=1 and exits has ended, and so does the keeper, with its
// exit code. So does one that exits before any master said READY=1: then there is nothing
// to keep. Any other end is a crash: the executable that said READY=1 last is started
// again, at once, or after a delay that doubles while masters do not last.
//
// The keeper is a child subreaper (PR_SET_CHILD_SUBREAPER), or process 1 of a container:
// whoever loses its parent becomes its child, and is reaped. Signals that are sent to it
// are passed on to the master.
//
// It has one goroutine beside those that only wait. It knows nothing of workers, and
// nothing of what the files are.
package keeper
