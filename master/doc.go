// Package master is the I/O shell around package core: it starts workers, binds
// sockets, carries messages and answers commands, and decides nothing.
//
// # Who runs what
//
//	loop        the one goroutine that owns the core, the sockets and the workers'
//	            links; it never waits for anything but the next event
//	pumps       for each worker: one reads its link, one its output, one waits for
//	            its exit; they post events, and wait when the loop is behind
//	spawn, bind one goroutine for each that is under way
//	API         one goroutine a request; it reads the snapshot, or posts a call
//	logger      writes log lines and workers' output; drops and counts when nobody reads
//
// Everything that readers may see is in the snapshot: an immutable value,
// published after each step by what the step changed.
//
// # Descriptors
//
// A handle's socket belongs to the loop from Bind to Release. A worker's link and
// pidfd belong to its process record until it has exited. All are close-on-exec;
// a worker gets what package proc is told to hand it, and nothing else.
//
// # Example
//
//	m, err := master.New(master.Options{Config: cfg, Logger: log, Version: "1.0"})
//	...
//	code := m.Run(ctx)
package master
