package core

import "github.com/f72e338e/supervisord/internal/proto"

// Action is something the shell does, in the order given. What can fail comes
// back as an event.
type Action interface{ action() }

type (
	// Spawn starts a worker; answered by Spawned or SpawnFailed, later by Exited.
	Spawn struct {
		Worker proto.WorkerID
		Pool   string
		Slot   int
		Gen    uint64
		Launch uint64
		Linked bool // with a link, or a channel of Node
		// Handles are what the worker gets with its start, in this order.
		Handles []proto.HandleID
	}
	// Send sends a message; with Handle set, its descriptor goes along, or those of
	// these Members of the handle. A member that does not exist is made.
	Send struct {
		Worker   proto.WorkerID
		Envelope proto.Envelope
		Handle   proto.HandleID
		Members  []int
	}
	// Terminate sends the pool's stop signal to the worker.
	Terminate struct {
		Worker proto.WorkerID
		Signal int
	}
	// Kill sends SIGKILL to the worker and what it started.
	Kill struct{ Worker proto.WorkerID }
	// Rouse interrupts what the worker's threads wait for in the kernel, so that they
	// look again: who waits in accept(2) does not see that its socket has changed.
	Rouse struct{ Worker proto.WorkerID }
	// Bind makes a socket; answered by BoundHandle or BindFailed. Its policy says
	// whether others are to join it (SO_REUSEPORT).
	Bind struct {
		Handle proto.HandleID
		Spec   proto.SocketSpec
		Policy string
	}
	// Admit says whether the master may hand connections to the worker: from when it
	// is ready until it is told to go.
	Admit struct {
		Worker proto.WorkerID
		Yes    bool
	}
	// Withdraw says that a worker which lives on has given a handle with members back:
	// no connection of it is to go there any more.
	Withdraw struct {
		Worker proto.WorkerID
		Handle proto.HandleID
	}
	// SetPolicy changes how connections of an open handle reach workers that are
	// granted it from now on, and those that have it dispatched already.
	SetPolicy struct {
		Handle proto.HandleID
		Policy string
	}
	// Relisten calls listen(2) again on the handle's socket, for another backlog;
	// answered by BoundHandle.
	Relisten struct {
		Handle  proto.HandleID
		Backlog int
	}
	// Mend undoes what holders did to the handle's sockets: on the socket itself, or
	// where the kernel does not allow that, by a new one from Spec in its place;
	// answered by Mended. What is right already stays.
	Mend struct {
		Handle proto.HandleID
		Spec   proto.SocketSpec
	}
	// Release closes the handle's socket, and removes its path.
	Release struct{ Handle proto.HandleID }
	// Forget says that no worker will be started from this launch any more.
	Forget struct{ Launch uint64 }
	// Reply ends a command.
	Reply struct {
		Op     OpID
		Result Result
	}
	// Quit ends the master: nothing is left that it would have to do.
	Quit struct{ Code int }
)

// Result is what came of a command.
type Result struct {
	Error   string         `json:"error,omitempty"` // "" = done
	Summary string         `json:"summary,omitempty"`
	Pool    string         `json:"pool,omitempty"`   // of the failure
	Worker  proto.WorkerID `json:"worker,omitempty"` // whose last lines belong to the failure
	Counts  *CountsResult  `json:"counts,omitempty"`
}

// CountsResult answers CountsAsked.
type CountsResult struct {
	Total   int64         `json:"total"`
	Workers []WorkerCount `json:"workers"`
	Missing []WorkerCount `json:"missing"` // did not answer in time, or cannot tell
}

// WorkerCount is one worker's count; nil = unknown.
type WorkerCount struct {
	Pool        string         `json:"pool"`
	Slot        int            `json:"slot"`
	Worker      proto.WorkerID `json:"worker"`
	PID         int            `json:"pid"`
	Connections *int64         `json:"connections"`
	Reason      string         `json:"reason,omitempty"`
}

func (Spawn) action()     {}
func (Send) action()      {}
func (Terminate) action() {}
func (Kill) action()      {}
func (Rouse) action()     {}
func (Bind) action()      {}
func (Admit) action()     {}
func (Withdraw) action()  {}
func (SetPolicy) action() {}
func (Relisten) action()  {}
func (Mend) action()      {}
func (Release) action()   {}
func (Forget) action()    {}
func (Reply) action()     {}
func (Quit) action()      {}
func (Changed) action()   {}
