package api

import "time"

// Paths of the control API.
const (
	PathStatus      = "/v1/status"
	PathConnections = "/v1/connections"
	PathEvents      = "/v1/events"
	PathReload      = "/v1/reload"
	PathRestart     = "/v1/restart"
	PathScale       = "/v1/scale"
	PathStop        = "/v1/stop"
)

// Status is the answer of /v1/status.
type Status struct {
	Master    Master     `json:"master"`
	Listeners []Listener `json:"listeners"`
	Pools     []Pool     `json:"pools"`
}

// Master describes the daemon itself.
type Master struct {
	PID           int     `json:"pid"`
	Version       string  `json:"version"`
	State         string  `json:"state"` // "starting", "running", "stopping"
	UptimeSeconds float64 `json:"uptime_seconds"`
	Config        string  `json:"config"` // file; "" = the embedded default or flags
	Upgrades      int     `json:"upgrades"`
	Recoveries    int     `json:"recoveries"`
	Degraded      string  `json:"degraded,omitempty"` // what is wrong with the master itself
	LostOutput    uint64  `json:"lost_output_lines"`  // dropped because nobody read the master's output fast enough
}

// Listener is one socket: a configured listener, or one that a worker asked for.
type Listener struct {
	Name      string   `json:"name"` // "" = asked for by a worker
	Network   string   `json:"network"`
	Address   string   `json:"address"`
	Policy    string   `json:"policy"`
	Steering  string   `json:"steering,omitempty"` // of reuse_port: "steered" or "hash"
	Exclusive bool     `json:"exclusive"`
	Backlog   int      `json:"backlog"` // in force, as the kernel capped it
	Queued    *int     `json:"queued"`  // connections not accepted yet
	Holders   []uint64 `json:"holders"` // worker ids
	AskedBy   string   `json:"asked_by"`
	Refused   []Wish   `json:"other_backlogs,omitempty"` // backlogs asked for in vain: the first asker's counts
}

// Wish is a backlog that somebody asked for and did not get.
type Wish struct {
	AskedBy string `json:"asked_by"`
	Backlog int    `json:"backlog"`
}

// Pool is one pool.
type Pool struct {
	Name       string   `json:"name"`
	Generation uint64   `json:"generation"`
	Desired    int      `json:"desired"`
	Ready      int      `json:"ready"`
	Rollout    *Rollout `json:"rollout"`
	Workers    []Worker `json:"workers"`
}

// Rollout is a roll-out under way.
type Rollout struct {
	Kind     string `json:"kind"` // "reload", "restart"
	From     uint64 `json:"from"`
	To       uint64 `json:"to"`
	Phase    string `json:"phase"`
	Replaced int    `json:"replaced"`
	Total    int    `json:"total"`
}

// Worker is one worker, or, with PID null, the last one of a slot that has none.
type Worker struct {
	ID            uint64   `json:"id"`
	Slot          int      `json:"slot"`
	PID           *int     `json:"pid"`
	Generation    uint64   `json:"generation"`
	State         string   `json:"state"` // starting, ready, draining, killing, backoff, failed
	Connections   *int64   `json:"connections"`
	Accepted      *uint64  `json:"accepted"`
	Restarts      int      `json:"restarts"` // of the slot
	UptimeSeconds *float64 `json:"uptime_seconds"`
	RSSBytes      *uint64  `json:"rss_bytes"`
	CPUSeconds    *float64 `json:"cpu_seconds"`
	LastExit      string   `json:"last_exit"` // of the slot's previous worker
	Status        string   `json:"status,omitempty"`
	RetrySeconds  *float64 `json:"retry_in_seconds,omitempty"`
}

// Connections is the answer of /v1/connections.
type Connections struct {
	Total   int64         `json:"total"`
	Workers []WorkerCount `json:"workers"`
	Missing []WorkerCount `json:"missing"` // did not answer in time, or cannot tell
}

// WorkerCount is one worker's connections; null = unknown.
type WorkerCount struct {
	Pool        string `json:"pool"`
	Slot        int    `json:"slot"`
	Worker      uint64 `json:"worker"`
	PID         int    `json:"pid"`
	Connections *int64 `json:"connections"`
	Reason      string `json:"reason,omitempty"`
}

// Event is one thing that happened. Members that do not apply are left out.
type Event struct {
	ID      uint64    `json:"id"` // grows by one; a gap means that events were missed
	Time    time.Time `json:"time"`
	Event   string    `json:"event"` // "worker.ready"
	Level   string    `json:"level"`
	Pool    string    `json:"pool,omitempty"`
	Slot    *int      `json:"slot,omitempty"`
	Worker  uint64    `json:"worker,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Gen     uint64    `json:"gen,omitempty"`
	Handle  uint64    `json:"handle,omitempty"`
	Address string    `json:"addr,omitempty"`
	Name    string    `json:"listener,omitempty"`
	Backlog int       `json:"backlog,omitempty"`
	From    string    `json:"from,omitempty"`
	To      string    `json:"to,omitempty"`
	Signal  string    `json:"signal,omitempty"`
	Code    *int      `json:"code,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Attempt int       `json:"attempt,omitempty"`
	DelayMS int64     `json:"delay_ms,omitempty"`
	TookMS  int64     `json:"took_ms,omitempty"`
	Result  string    `json:"result,omitempty"`
	Output  []string  `json:"output,omitempty"` // last lines of a worker that failed
}

// Line is one line of the answer to a command: one member is set.
type Line struct {
	Operation uint64  `json:"operation,omitempty"`
	Event     *Event  `json:"event,omitempty"`
	Result    *Result `json:"result,omitempty"`
}

// Kinds of failure in a Result.
const (
	KindFailed = "failed"
	KindConfig = "config" // the configuration is bad
	KindUsage  = "usage"  // no such pool, a number out of range
)

// Result ends a command. Error is empty when it is done.
type Result struct {
	Error  string   `json:"error,omitempty"`
	Kind   string   `json:"kind,omitempty"`
	Pool   string   `json:"pool,omitempty"`
	Worker uint64   `json:"worker,omitempty"`
	Output []string `json:"output,omitempty"` // last lines of the worker that is the cause
}

// RestartRequest names the pool to restart; "" = all.
type RestartRequest struct {
	Pool string `json:"pool"`
}

// ScaleRequest sets how many workers a pool has.
type ScaleRequest struct {
	Pool    string `json:"pool"`
	Workers int    `json:"workers"`
}

// StopRequest ends the daemon; Fast skips the drain.
type StopRequest struct {
	Fast bool `json:"fast"`
}

// Failure is the body of every answer that is not 200.
type Failure struct {
	Error string `json:"error"`
}
