package core

import (
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Level of a Changed record.
type Level uint8

// The levels, as loggers know them.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// Changed records that something happened. It is the only source of log lines,
// metrics and events, so that the three cannot disagree. Fields that do not
// apply are zero; Slot is -1.
type Changed struct {
	What    string // one of the What constants: "worker ready"
	Level   Level
	Pool    string
	Slot    int
	Worker  proto.WorkerID
	PID     int
	Gen     uint64
	Handle  proto.HandleID
	Address string // "tcp 127.0.0.1:80"
	Name    string // of a listener
	Backlog int
	From    string
	To      string
	Signal  string
	Code    *int
	Cause   string
	Attempt int
	Delay   time.Duration
	Took    time.Duration
	Op      OpID
	Result  string
}

// What happened. The text is the log message and, with spaces as dots, the event's name.
const (
	WhatWorkerStarting  = "worker starting"
	WhatWorkerStarted   = "worker started"
	WhatWorkerReady     = "worker ready"
	WhatWorkerDraining  = "worker draining"
	WhatWorkerKilling   = "worker killing"
	WhatWorkerUnkilled  = "worker does not die"
	WhatWorkerExited    = "worker exited"
	WhatWorkerFailed    = "worker failed"
	WhatWorkerStatus    = "worker status"
	WhatWorkerRefused   = "worker refused"
	WhatWorkerOnline    = "worker online"
	WhatWorkerListening = "worker listening"
	WhatWorkerMessage   = "worker message"

	WhatWorkerDisconnected = "worker disconnected"
	WhatSlotBackoff        = "slot backoff"
	WhatSlotFailed         = "slot failed"
	WhatSlotDone           = "slot done"
	WhatPoolReady          = "pool ready"
	WhatPoolScaled         = "pool scaled"
	WhatPoolRemoved        = "pool removed"
	WhatRolloutStarted     = "rollout started"
	WhatRolloutQueued      = "rollout queued"
	WhatRolloutWatching    = "rollout watching"
	WhatRolloutReplaced    = "rollout replaced"
	WhatRolloutFailed      = "rollout failed"
	WhatRolloutReverted    = "rollout reverted"
	WhatRolloutDone        = "rollout done"
	WhatHandleOpen         = "handle open"
	WhatHandleFailed       = "handle failed"
	WhatHandleGranted      = "handle granted"
	WhatHandleAdopted      = "handle adopted"
	WhatHandleBacklog      = "handle backlog differs"
	WhatHandleKept         = "handle keeps its options"
	WhatHandleLinger       = "handle lingers"
	WhatHandleHarmed       = "handle harmed"
	WhatHandleMended       = "handle mended"
	WhatHandleClosed       = "handle closed"
	WhatConfigApplied      = "configuration applied"
	WhatConfigRefused      = "configuration refused"
	WhatMasterReady        = "master ready"
	WhatMasterTookOver     = "master took over"
	WhatMasterStopping     = "master stopping"
)

func levelOf(what string) Level {
	switch what {
	case WhatWorkerStarting, WhatWorkerStarted, WhatHandleGranted, WhatWorkerStatus, WhatWorkerOnline, WhatWorkerListening, WhatWorkerMessage, WhatWorkerDisconnected:
		return Debug
	case WhatSlotBackoff, WhatWorkerKilling, WhatHandleBacklog, WhatHandleKept, WhatHandleLinger, WhatWorkerRefused, WhatHandleFailed, WhatHandleHarmed:
		return Warn
	case WhatSlotFailed, WhatRolloutFailed, WhatConfigRefused, WhatWorkerUnkilled, WhatWorkerFailed:
		return Error
	}
	return Info
}

// changed appends a record; the level follows from what happened.
func (c *Core) changed(ch Changed) {
	ch.Level = levelOf(ch.What)
	c.out = append(c.out, ch)
}

// of fills in what is known about a worker.
func (w *Worker) of(what string) Changed {
	return Changed{What: what, Pool: w.Pool, Slot: w.Slot, Worker: w.ID, PID: w.PID, Gen: w.Gen}
}
