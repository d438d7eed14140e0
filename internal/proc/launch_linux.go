package proc

import (
	"time"

	"syscall"

	"github.com/f72e338e/supervisord/fdpass"
)

// Launch says what to execute, and as whom. Mind the zero values of UID, GID and
// Umask, which mean root, root and 0; -1 keeps what the master has.
type Launch struct {
	// Command is the argument vector. Without a slash Command[0] is looked up in
	// PATH of Env, by the stage, as the user of the process; with one and not
	// absolute it is relative to the directory of the process.
	Command []string `json:"-"`
	// Exec is executed instead of the file that Command[0] names, if set. It may
	// be O_PATH. It must be a binary: a script's interpreter cannot open it any
	// more (execveat(2), "BUGS").
	Exec *fdpass.File `json:"-"`
	// Dir is the working directory, "" the master's; DirFile, if set, comes
	// before Dir. It is entered as the user of the process, as systemd does it,
	// because only that user may have the right to (NFS).
	Dir     string       `json:"-"`
	DirFile *fdpass.File `json:"-"`
	Env     []string     `json:"-"` // all of it; nothing is inherited
	// Mark is a variable, with its value, that the stage has in its environment, so that
	// the process can be found from the beginning; the command has Env.
	Mark string `json:"-"`

	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"` // supplementary; nil: none with another UID, else the master's
	Umask  int   `json:"umask"`

	Limits     []Limit `json:"limits,omitempty"`
	Nice       *int    `json:"nice,omitempty"`       // -20 to 19
	Scheduling string  `json:"scheduling,omitempty"` // "", "other", "batch" or "idle", sched(7)
	// SchedulingWish starts the command also where the system forbids Scheduling.
	SchedulingWish bool `json:"scheduling_wish,omitempty"`
	// Slice is how long the command computes before the kernel looks for others,
	// 100 us to 100 ms, sched_setattr(2); 0: the master's. Before Linux 6.12 it has
	// no effect.
	Slice       time.Duration `json:"slice,omitempty"`
	OOMScoreAdj *int          `json:"oom_score_adj,omitempty"`
	CPUAffinity []int         `json:"cpu_affinity,omitempty"` // CPU numbers below 1024
	NoNewPrivs  bool          `json:"no_new_privs,omitempty"`
	// Capabilities are all that the process and its children can have, by their
	// names in capabilities(7). nil leaves that to the kernel: all for root, none
	// after a change to another user. For such a user they become ambient, so that
	// the command has them without file capabilities. The bounding set is limited
	// to them if the master may do that (CAP_SETPCAP).
	Capabilities []string `json:"capabilities"`

	Stdin  *fdpass.File   `json:"-"` // nil: /dev/null, and so with the next two
	Stdout *fdpass.File   `json:"-"`
	Stderr *fdpass.File   `json:"-"`
	Files  []*fdpass.File `json:"-"` // become 3, 4, 5, ...

	// SetListenPID adds LISTEN_PID, the number of the process, to Env, and WATCHDOG_PID
	// where there is WATCHDOG_USEC (sd_listen_fds(3), sd_watchdog_enabled(3)).
	SetListenPID bool `json:"set_listen_pid,omitempty"`
}

// Limit is one resource limit, getrlimit(2). Resource is a RLIMIT constant of
// x/sys/unix, unix.RLIM_INFINITY means no limit.
type Limit struct {
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// What master and stage say over a stream socket pair. The stage has its end at
// the descriptor that its second argument names, behind those that the command
// inherits; an executable and a directory that are held open follow.
//
//	master                                  stage
//	  | fork, exec /proc/self/exe ----------> |  "supervisord: stage" FD
//	  | length (4 bytes, big endian), order ->|  JSON
//	  |                                       |  limits, identity, directory, ...
//	  | <---------------------------------- x |  execve(2) is next
//	  | <-------------------------------- EOF |  it worked: the socket is close-on-exec
//
// When a step fails, the execve among them:
//
//	| <-------------------------- StageError|  JSON, behind the x if that was sent
//	| <-------------------------------- EOF |  exit status 127
//
// EOF without an x means that the stage was killed.
const (
	stageName  = "supervisord: stage"
	executing  = 'x'
	stageExit  = 127     // as a shell that cannot execute a command
	maxOrder   = 8 << 20 // bytes; above what execve(2) takes
	maxFailure = 64 << 10
)

// order is a Launch on its way to the stage. Its strings travel as bytes: JSON
// strings are UTF-8, and arguments, variables and paths need not be.
type order struct {
	Launch
	Command [][]byte `json:"command"`
	Env     [][]byte `json:"env"`
	Dir     []byte   `json:"dir"`
	Files   int      `json:"files"`
	HasExec bool     `json:"has_exec,omitempty"`
	HasDir  bool     `json:"has_dir,omitempty"`
}

func newOrder(l Launch) order {
	return order{Launch: l, Command: asBytes(l.Command), Env: asBytes(l.Env), Dir: []byte(l.Dir),
		Files: len(l.Files), HasExec: l.Exec != nil, HasDir: l.DirFile != nil}
}

// launch is the Launch that was sent, without its files.
func (o order) launch() Launch {
	l := o.Launch
	l.Command, l.Env, l.Dir = asStrings(o.Command), asStrings(o.Env), string(o.Dir)
	return l
}

func asBytes(list []string) [][]byte {
	b := make([][]byte, len(list))
	for i, s := range list {
		b[i] = []byte(s)
	}
	return b
}

func asStrings(list [][]byte) []string {
	s := make([]string, len(list))
	for i, b := range list {
		s[i] = string(b)
	}
	return s
}

// Steps of a StageError, named by the configuration key they come from where
// there is one.
const (
	StepStage        = "stage" // the stage itself: killed, or its order unreadable
	StepOOMScoreAdj  = "oom_score_adj"
	StepNice         = "nice"
	StepScheduling   = "scheduling"
	StepAffinity     = "cpu_affinity"
	StepLimits       = "limits"
	StepUser         = "user"
	StepGroup        = "group"
	StepGroups       = "supplementary_groups"
	StepCapabilities = "capabilities"
	StepDirectory    = "working_directory"
	StepNoNewPrivs   = "no_new_privs"
	StepExec         = "command"
)

// StageError says why the command was not executed.
type StageError struct {
	Step     string        `json:"step"`
	Errno    syscall.Errno `json:"errno"` // 0 when no system call failed
	Sentence string        `json:"sentence"`
}

func (e *StageError) Error() string { return e.Sentence }

// Unwrap returns the errno, nil when there is none.
func (e *StageError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}
