package config

import (
	"io/fs"
	"math"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Config is a complete, valid configuration. Every default is filled in.
type Config struct {
	File       string   // absolute path of the main file; "" for the embedded default and for flags
	Files      []string // every file read, absolute, the main one first
	Supervisor Supervisor
	Control    Control
	Listeners  []Listener // in the order of the files
	Pools      []Pool     // in the order of the files
}

// Supervisor holds what concerns the master itself.
type Supervisor struct {
	LogLevel  string `key:"log_level" default:"info" values:"trace debug info warn error" applies:"reload" doc:"Lowest level that is logged."`
	LogFormat string `key:"log_format" default:"text" values:"text json" applies:"reload" doc:"Form of the log lines."`
}

// Control says where the control socket is and who may open it. It is read when
// the master starts or is upgraded.
type Control struct {
	// Socket is an absolute path; "" means the default search.
	Socket string      `key:"socket" applies:"restart" doc:"Path of the control socket. Default: control.sock in $RUNTIME_DIRECTORY, else in supervisord below $XDG_RUNTIME_DIR, else in /run/supervisord."`
	Mode   fs.FileMode `key:"mode" default:"0600" applies:"restart" doc:"Permission bits of the control socket."`
	Group  string      `key:"group" applies:"restart" doc:"Group of the control socket, by name or number. Its members may read."`
}

// Listener is a socket named in the configuration.
type Listener struct {
	Name string
	// Spec is what to bind: addresses are literal, users are numbers, Unix paths
	// absolute. With Inherit set, only Inherit and Network are.
	Spec      proto.SocketSpec
	Policy    string // "shared"
	Exclusive bool
	Linger    time.Duration
}

// Pool is one command, run Workers times.
//
// In Command, Env, WorkingDirectory and Output the placeholders {slot} and
// {worker} are left for whoever starts the worker.
type Pool struct {
	Name    string
	Command []string `key:"command" required:"yes" applies:"restart" doc:"The program and its arguments. A relative program with a slash is relative to the working directory, one without is searched in PATH. '{slot}' and '{worker}' are replaced."`

	Workers     int  `key:"workers" codec:"workers" default:"1" alias:"instances processes numprocs worker_processes concurrency" applies:"reload" doc:"How many workers run. 'auto' is the CPU quota of the cgroup or the number of processors the master may use, at least 1."`
	WorkersAuto bool // Workers came from "auto"

	Protocol     string           `key:"protocol" default:"native" values:"native node systemd none" applies:"restart" doc:"How master and worker speak. 'native': the link of docs/protocol.md. 'node': the channel of Node.js, for programs that use node:cluster or could. 'systemd': LISTEN_FDS and NOTIFY_SOCKET, as of systemd. 'none': just a process."`
	Listeners    []string         `key:"listeners" applies:"restart" doc:"Names of the listeners that the workers are given."`
	BindAllow    []proto.BindRule `key:"bind_allow" set:"BindAllowSet" applies:"reload" doc:"What the workers may ask for beside their listeners: 127.0.0.1:9000-9099, *:8000, udp:*:53, /run/app/ (below a directory), /run/app/x.sock, @name*. An empty list allows nothing. Default: every port from 1024 on and Unix paths below the working directory."`
	BindAllowSet bool             // bind_allow is stated; else the default rule holds

	User                string   `key:"user" alias:"uid" applies:"restart" doc:"User of the workers, by name or number. Default: as the master."`
	Group               string   `key:"group" alias:"gid" applies:"restart" doc:"Group of the workers, by name or number. Default: the primary group of the user."`
	SupplementaryGroups []string `key:"supplementary_groups" applies:"restart" doc:"Further groups, in addition to those the system knows for the user."`
	UID, GID            int      // resolved; -1 = as the master
	Groups              []int    // resolved supplementary groups, sorted, without GID; empty together with UID -1 = as the master

	WorkingDirectory string      `key:"working_directory" alias:"cwd directory chdir working_dir workdir" applies:"restart" doc:"Directory the workers start in. Default: the directory of the main file."`
	Umask            fs.FileMode `key:"umask" default:"0027" applies:"restart" doc:"File mode creation mask of the workers."`

	Env         map[string]string `key:"env" alias:"environment" applies:"restart" doc:"Environment variables of the workers. They win over env_file. With protocol native GOMAXPROCS, the share of a worker in the processors, is set unless it stands here or in env_file."`
	EnvFile     string            `key:"env_file" alias:"environment_file" applies:"restart" doc:"File of KEY=VALUE lines, as EnvironmentFile= of systemd. With a leading '-' it may be missing. A change of its content counts as a change of the pool."`
	EnvFileVars []string          // what EnvFile holds: KEY=VALUE in order
	InheritEnv  []string          `key:"inherit_env" applies:"restart" doc:"Names taken over from the environment of the master, beside PATH, LANG, LC_*, TZ, HOME, USER, LOGNAME, SHELL and TMPDIR. A trailing * matches any rest; '*' alone takes everything."`

	Ready      string        `key:"ready" codec:"ready" set:"ReadySet" applies:"restart" doc:"What makes a worker ready: 'notify' (it says so), 'listening' (it listens on the listeners of its pool, or on anything where the pool has none; of a worker with protocol systemd the kernel tells it), or a stated time such as 'delay:2s'. Default: notify with protocol native, listening with protocol node and with protocol systemd and listeners; with protocol none a delay has to be stated. A worker with protocol node says it with process.send(\"ready\"), one with protocol systemd by READY=1 (sd_notify(3)). Where 'listening' is the default READY=1 counts, too; where it is stated only what the kernel tells does."`
	ReadySet   bool          // ready is stated
	ReadyDelay time.Duration // with Ready "delay"

	StartTimeout    time.Duration `key:"start_timeout" default:"60s" min:"1ms" applies:"reload" doc:"A worker that is not ready after this is ended and counts as failed."`
	Linger          time.Duration `key:"linger" default:"30s" applies:"reload" doc:"How long a socket that a worker asked for stays open, with its queue, when its last holder died and a successor is to come. Configured listeners stay open in any case."`
	MinUptime       time.Duration `key:"min_uptime" default:"5s" applies:"reload" doc:"A worker that was ready for less did not run well: its restart is delayed."`
	Heartbeat       time.Duration `key:"heartbeat_timeout" default:"0s" alias:"watchdog watchdog_sec" applies:"reload" doc:"A ready worker that shows no life for so long is ended and counts as failed; 0s: it need not. With protocol native the master asks, and the worker package answers as long as the program runs. With protocol systemd the worker is given WATCHDOG_USEC and has to send WATCHDOG=1 (sd_watchdog_enabled(3))."`
	GracefulTimeout time.Duration `key:"graceful_timeout" default:"30s" alias:"stopwaitsecs" applies:"reload" doc:"How long a draining worker may finish what is open."`
	KillTimeout     time.Duration `key:"kill_timeout" default:"5s" applies:"reload" doc:"After graceful_timeout: from the last stop signal to SIGKILL."`
	DrainDelay      time.Duration `key:"drain_delay" default:"0s" applies:"reload" doc:"How long a worker goes on as before when it is to be stopped, so that a load balancer can notice first."`
	StopSignal      string        `key:"stop_signal" default:"SIGTERM" alias:"stopsignal kill_signal" applies:"reload" doc:"Signal that asks a worker to stop: SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH or SIGABRT."`

	StopSignalNumber int

	NonBlocking bool `key:"non_blocking" alias:"nonblocking" default:"false" applies:"restart" doc:"The sockets that a worker with protocol systemd is given have O_NONBLOCK, as with NonBlocking= of systemd.service(5): for programs that take the flag for granted, such as nginx, and else hang in accept(2) when another worker was faster. The flag is one for all who hold a socket, so it is set where one pool wants it. Workers with other protocols have it in any case."`

	MaxConnections int `key:"max_connections" default:"0" max:"1073741823" applies:"restart" doc:"How many connections one worker may have open at once, 0 for any number. At so many it accepts none: they go to other workers, or wait in the kernel when all are full; under the policy reuse_port they may wait for a full one though another has room. For workers that use our package, and for those that are handed connections."`

	Restart         string        `key:"restart" default:"always" values:"always on-failure never" alias:"autorestart" applies:"reload" doc:"When a worker that ended by itself is started again."`
	RestartDelay    time.Duration `key:"restart_delay" default:"100ms" applies:"reload" doc:"Delay before a worker that was ready for less than min_uptime is replaced; it doubles each time in a row, give or take a fifth. One that ran longer is replaced at once."`
	RestartMaxDelay time.Duration `key:"restart_max_delay" default:"30s" applies:"reload" doc:"Longest delay before a restart."`
	MaxRestarts     int           `key:"max_restarts" default:"10" min:"1" max:"1000000" applies:"reload" doc:"More restarts of a slot than this in restart_window reach the limit."`
	RestartWindow   time.Duration `key:"restart_window" default:"60s" min:"1ms" applies:"reload" doc:"Time in which restarts are counted."`
	OnLimit         string        `key:"on_limit" default:"slow" values:"slow stop exit" applies:"reload" doc:"At the limit: 'slow' goes on with one try per restart_window, 'stop' gives the slot up, 'exit' ends the master."`

	Output string `key:"output" default:"capture" applies:"restart" doc:"Where standard output and error go: 'capture' (through the master), 'file:PATH' or 'inherit'. '{slot}' and '{worker}' are replaced in PATH."`

	Rollout Rollout `key:"rollout"`
	Limits  Limits  `key:"limits"`
}

// Rollout says how the workers of a pool are replaced.
type Rollout struct {
	MaxSurge          int           `key:"max_surge" default:"1" max:"10000" applies:"reload" doc:"How many workers may run beyond the number of slots."`
	MaxUnavailable    int           `key:"max_unavailable" default:"0" max:"10000" applies:"reload" doc:"How many slots may be without a ready worker."`
	Monitor           time.Duration `key:"monitor" default:"5s" applies:"reload" doc:"How long the first batch, and all at the end, are watched."`
	OnFailure         string        `key:"on_failure" default:"rollback" values:"rollback halt" applies:"reload" doc:"When a successor fails: go back to what ran before, or stop where it is."`
	Order             string        `key:"order" default:"newest" values:"newest oldest" applies:"reload" doc:"Which workers are replaced first."`
	MaxGenerations    int           `key:"max_generations" default:"5" min:"2" max:"1000" applies:"reload" doc:"How many generations may live at once while old workers drain."`
	GenerationTimeout time.Duration `key:"generation_timeout" default:"10m" min:"1s" applies:"reload" doc:"How long the workers of an old generation may drain at most."`
}

// Unlimited is the value of a resource limit without a limit; it equals
// RLIM_INFINITY of setrlimit(2).
const Unlimited uint64 = math.MaxUint64

// Limits holds what the workers are restricted to. A nil pointer or a zero value
// leaves what the master has; [Unlimited] lifts a limit. Nofile and Nproc are
// counts, the others bytes; soft and hard limit are set to the same value.
type Limits struct {
	Nofile        *uint64       `key:"nofile" min:"16" applies:"restart" doc:"RLIMIT_NOFILE: open files."`
	Nproc         *uint64       `key:"nproc" applies:"restart" doc:"RLIMIT_NPROC: processes and threads of the user."`
	Core          *uint64       `key:"core" unit:"bytes" applies:"restart" doc:"RLIMIT_CORE: size of a core dump."`
	Memlock       *uint64       `key:"memlock" unit:"bytes" applies:"restart" doc:"RLIMIT_MEMLOCK: locked memory."`
	Stack         *uint64       `key:"stack" unit:"bytes" applies:"restart" doc:"RLIMIT_STACK: stack of the first thread."`
	AS            *uint64       `key:"as" unit:"bytes" applies:"restart" doc:"RLIMIT_AS: address space."`
	Nice          *int          `key:"nice" min:"-20" max:"19" applies:"restart" doc:"Nice value, sched(7)."`
	Scheduling    string        `key:"scheduling" set:"SchedulingSet" values:"other batch idle" applies:"restart" doc:"Scheduling policy, sched(7). Default with protocol native: 'batch', under which a worker that is woken does not push aside another that runs; where the system forbids that, and with protocol none: as the master."`
	SchedulingSet bool          // scheduling is stated; else Scheduling is a wish
	Slice         time.Duration `key:"slice" min:"100us" max:"100ms" applies:"restart" doc:"How long the kernel lets a worker compute before it looks whether others should, sched_setattr(2). Shorter ones let a light request pass a heavy one of another worker sooner. Linux 6.12 and later; older ones have one for all. Default with protocol native: '100us'; else as the master."`
	OOMScoreAdj   *int          `key:"oom_score_adj" min:"-1000" max:"1000" applies:"restart" doc:"How ready the kernel is to kill a worker when memory is short, proc(5)."`
	CPUAffinity   []int         `key:"cpu_affinity" max:"8191" applies:"restart" doc:"Processors the workers may run on, from 0."`
	NoNewPrivs    bool          `key:"no_new_privs" default:"false" applies:"restart" doc:"Forbid the workers to gain privileges by execve(2)."`
	Capabilities  []string      `key:"capabilities" applies:"restart" doc:"Capabilities the workers keep as an ordinary user, such as CAP_NET_BIND_SERVICE."`
}
