package core

import (
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// OpID names a command that somebody waits for; the shell chooses it. 0 = nobody.
type OpID uint64

// Event is something that happened.
type Event interface{ event() }

// Events of commands and configuration.
type (
	// Configured brings a configuration: the first, a reload, or a restart.
	Configured struct {
		Op     OpID
		Kind   string // "start", "reload", "restart": for people
		Config Config
		Force  []string // pools to replace even if nothing changed
		Only   []string // nil, or the only pools that it concerns: the rest stays as it is
	}
	// ScaleAsked sets how many workers a pool has.
	ScaleAsked struct {
		Op   OpID
		Pool string
		N    int
	}
	// StopAsked ends everything: gracefully, or fast (the stop signal at once).
	StopAsked struct {
		Op   OpID
		Fast bool
		Code int // exit code of the master
	}
	// CountsAsked gathers connection counts, of one pool or ("") of all.
	CountsAsked struct {
		Op        OpID
		Pool      string
		TimeoutMS int64
	}
	// TookOver is the first event of a restored core whose master is another than the
	// one that gave the state. Epoch is its incarnation; one that is not greater than
	// the last is replaced by the next.
	TookOver struct {
		Epoch uint64
		Why   string // what became of the one before
	}
	// StartLost means that a worker which was being started is to be started again: its
	// process does not exist, or is gone by now, and it was the old master's end that
	// kept it from becoming ready. It follows TookOver.
	StartLost struct{ Worker proto.WorkerID }
	// Tick means that NextDeadline has come.
	Tick struct{}
)

// Events of workers.
type (
	// Spawned means that the process exists.
	Spawned struct {
		Worker proto.WorkerID
		PID    int
	}
	// SpawnFailed means that there is no process.
	SpawnFailed struct {
		Worker proto.WorkerID
		Cause  string
	}
	// StageFailed means that the process could not become the command; its exit follows.
	StageFailed struct {
		Worker proto.WorkerID
		Cause  string
	}
	// Exited means that the process is gone and reaped, and its link was read to the end.
	Exited struct {
		Worker proto.WorkerID
		Exit   Exit
	}
	// Received is a message of the worker.
	Received struct {
		Worker   proto.WorkerID
		Envelope proto.Envelope
	}
	// Said is what a worker says and nothing follows from, for people and programs that
	// watch.
	Said struct {
		Worker proto.WorkerID
		What   string // one of the What constants of workers
		Text   string
	}
	// Notified is what a worker without a link says (sd_notify(3)).
	Notified struct {
		Worker    proto.WorkerID
		Ready     bool
		Stopping  bool
		Reloading bool
		Alive     bool   // WATCHDOG=1
		Broken    bool   // WATCHDOG=trigger: it wants to be replaced, now
		Status    string // "" = nothing said
		Extend    time.Duration
	}
	// Accepting means that the kernel shows a worker waiting on its pool's listeners
	// for connections.
	Accepting struct{ Worker proto.WorkerID }
	// Counted is what was found out about the connections of a worker that cannot tell;
	// Re as in the Send that asked, 0 when nobody did.
	Counted struct {
		Worker      proto.WorkerID
		Re          uint64
		Connections int64
		Unknown     bool // it could not be found out
	}
	// LinkClosed means that the worker's end of the link is closed.
	LinkClosed struct{ Worker proto.WorkerID }
	// LinkBroken means that the worker does not do its part on the link: it does not
	// read what it is sent, or sends what is no message.
	LinkBroken struct {
		Worker proto.WorkerID
		Cause  string
	}
)

// Events of handles.
type (
	// BoundHandle answers Bind.
	BoundHandle struct {
		Handle proto.HandleID
		Bound  proto.Bound
	}
	// BindFailed answers Bind.
	BindFailed struct {
		Handle proto.HandleID
		Error  proto.Error
	}
	// Sabotaged means that a holder harmed the socket that all holders share.
	Sabotaged struct {
		Handle   proto.HandleID
		Member   int    // which of its sockets, 0 but for handles with members
		Shut     bool   // nobody can connect
		Blocking bool   // who calls accept(2) waits in it, with whatever else it has to do
		Since    Time   // when it was last seen in order; 0: the kernel told at once
		What     string // for people: "backlog changed from 511 to 5"
	}
	// Mended answers Mend.
	Mended struct {
		Handle proto.HandleID
		Bound  proto.Bound
		Anew   bool   // by another socket: holders have one that is dead
		Cause  string // why it could not be mended; "" = it was
	}
)

// Exit says how a process ended.
type Exit struct {
	Known  bool   `json:"known"`            // false: it was no child, and nobody could tell
	Code   int    `json:"code"`             // when Signal is empty
	Signal string `json:"signal,omitempty"` // "SIGKILL"
	Core   bool   `json:"core,omitempty"`
}

func (Configured) event()  {}
func (ScaleAsked) event()  {}
func (StopAsked) event()   {}
func (CountsAsked) event() {}
func (TookOver) event()    {}
func (StartLost) event()   {}
func (Tick) event()        {}
func (Spawned) event()     {}
func (SpawnFailed) event() {}
func (StageFailed) event() {}
func (Exited) event()      {}
func (Received) event()    {}
func (Said) event()        {}
func (Notified) event()    {}
func (Accepting) event()   {}
func (Counted) event()     {}
func (LinkClosed) event()  {}
func (LinkBroken) event()  {}
func (BoundHandle) event() {}
func (BindFailed) event()  {}
func (Sabotaged) event()   {}
func (Mended) event()      {}
