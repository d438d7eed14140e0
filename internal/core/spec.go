package core

import (
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Config is what the core must know of a configuration. The shell made it from a
// file that it has validated.
type Config struct {
	Listeners []Listener `json:"listeners,omitempty"`
	Pools     []PoolSpec `json:"pools,omitempty"`
	// MaxHandles is how many sockets workers may have asked for, of all pools
	// together, 0 for no limit: the master needs descriptors for other things.
	MaxHandles int `json:"max_handles,omitempty"`
}

// Listener is a configured listener.
type Listener struct {
	Name      string           `json:"name"`
	Spec      proto.SocketSpec `json:"spec"`
	Policy    string           `json:"policy"`
	Exclusive string           `json:"exclusive,omitempty"` // owner "pool/0", "" = shared
}

// Protocols of a pool.
const (
	ProtocolNative  = "native"
	ProtocolNode    = "node"
	ProtocolSystemd = "systemd"
	ProtocolNone    = "none"
)

// Readiness of a pool's workers.
const (
	ReadyNotify    = "notify"    // the worker says so
	ReadyListening = "listening" // it holds its pool's listeners, or any handle where the pool has none
	ReadyDelay     = "delay"     // ReadyDelay has passed since it was started
)

// What happens at the restart limit.
const (
	LimitSlow = "slow" // one try every restart_window
	LimitStop = "stop" // no further try
	LimitExit = "exit" // the master stops and exits 1
)

// PoolSpec is a pool as configured. A change of Fingerprint means that workers
// must be replaced; everything else applies to those that run.
type PoolSpec struct {
	Name        string           `json:"name"`
	Desired     int              `json:"desired"`
	Fingerprint string           `json:"fingerprint"`
	Launch      uint64           `json:"launch"` // the shell's number for how to start a worker
	Protocol    string           `json:"protocol"`
	Listeners   []string         `json:"listeners,omitempty"`
	Allow       []proto.BindRule `json:"allow,omitempty"`
	AllowSet    bool             `json:"allow_set,omitempty"` // Allow replaces the default rule
	Confine     proto.Confine    `json:"confine"`             // for Unix paths that workers name
	Ready       string           `json:"ready"`
	ReadyDelay  time.Duration    `json:"ready_delay,omitempty"`
	ReadyOnly   bool             `json:"ready_only,omitempty"` // so, and not by READY=1
	Timeouts    Timeouts         `json:"timeouts"`
	Restart     RestartPolicy    `json:"restart"`
	Rollout     RolloutPolicy    `json:"rollout"`
	StopSignal  int              `json:"stop_signal"`

	MaxConnections int64 `json:"max_connections,omitempty"` // of a worker; 0 = any number
}

// Timeouts of a worker's life.
type Timeouts struct {
	Start     time.Duration `json:"start"`               // fork to ready
	MinUptime time.Duration `json:"min_uptime"`          // ready for so long = a good start
	Graceful  time.Duration `json:"graceful"`            // drain to stop signal
	Kill      time.Duration `json:"kill"`                // stop signal to SIGKILL
	Drain     time.Duration `json:"drain"`               // delay before the worker is told to drain
	Heartbeat time.Duration `json:"heartbeat,omitempty"` // a ready worker shows life so often; 0 = it need not
	Linger    time.Duration `json:"linger"`              // how long a requested handle outlives its last holder's death
}

// RestartPolicy says whether and when a slot gets another worker.
type RestartPolicy struct {
	Policy   string        `json:"policy"` // "always", "on-failure", "never"
	Delay    time.Duration `json:"delay"`
	MaxDelay time.Duration `json:"max_delay"`
	Max      int           `json:"max"` // failures within Window; 0 = no limit
	Window   time.Duration `json:"window"`
	OnLimit  string        `json:"on_limit"`
}

// RolloutPolicy says how workers are replaced.
type RolloutPolicy struct {
	MaxSurge          int           `json:"max_surge"`
	MaxUnavailable    int           `json:"max_unavailable"`
	Monitor           time.Duration `json:"monitor"`
	Halt              bool          `json:"halt,omitempty"`   // on failure stop where it is, instead of rolling back
	Oldest            bool          `json:"oldest,omitempty"` // replace the oldest worker first
	MaxGenerations    int           `json:"max_generations"`
	GenerationTimeout time.Duration `json:"generation_timeout"`
}
