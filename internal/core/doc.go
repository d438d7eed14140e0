// Package core is the brain of the master: one pure state machine that decides
// everything about pools, workers, handles, roll-outs, counts and the stop.
//
//	actions := c.Step(now, event)   // an event happened; do these, in order
//	deadline := c.NextDeadline()    // step with Tick at this time at the latest
//	c.Touched()                     // which records that changed
//	core.Restore(c.State())         // an equal core; in another master step TookOver first
//
// It knows no descriptor, clock, goroutine, lock or logger. Events are past
// tense, actions imperative; deadlines are data on the thing they concern. What
// the shell (package master) gets to do is dumb: start this worker, send this
// message with the descriptor of that handle, bind this socket.
//
// # Who owns what
//
//	Core
//	 ├─ Pool ── Generation   what its workers are started from
//	 │    ├──── Slot         restart history; one serving worker, maybe a successor
//	 │    └──── Rollout      replaces the slots' workers, a few at a time
//	 ├─ Worker               one process; its life is the table in lifecycle.go
//	 ├─ Handle               one bound socket; who waits for it and who holds it
//	 ├─ Gather               connection counts asked for, and the deadline
//	 └─ Operation            a command somebody waits for
//
// A worker is attached to its slot (as Current or Next) while it serves or is on
// the way to serving. From the moment it is told to go it is detached, so that
// the slot is free for another; it then only has to end, for which its deadlines
// provide.
//
// # Cost
//
// A step touches only the records that it changes; nothing is proportional to
// the number of workers but what concerns all of them (a stop, a count of all).
package core
