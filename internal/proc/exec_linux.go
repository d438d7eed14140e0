package proc

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// defaultPath is searched when Env has no PATH, as execvp(3) does.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"

// execute is the rest of the stage, from the look-up on. It returns only when
// the command was not executed.
func (s *stage) execute() *StageError {
	what := "execute " + s.Command[0]
	path, err := s.find()
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EACCES) {
			hint = s.explain("", err)
		} else if errors.Is(err, unix.ENOENT) {
			hint = "not found in PATH=" + s.searchPath()
		}
		return failure(StepExec, what, err, hint)
	}
	env := s.Env
	if s.SetListenPID {
		pid := strconv.Itoa(unix.Getpid())
		env = append(without(without(env, "LISTEN_PID"), "WATCHDOG_PID"), "LISTEN_PID="+pid)
		if slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "WATCHDOG_USEC=") }) {
			env = append(env, "WATCHDOG_PID="+pid)
		}
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return failure(StepNoNewPrivs, "set no_new_privs", err, "")
		}
	}
	resetSignals()
	// A master that is gone was killed; the next one will find this process.
	if _, err := control(s.control).Write([]byte{executing}); err != nil && err != unix.EPIPE {
		return failure(StepStage, "tell the master", err, "")
	}
	// Last of all: with little address space left the runtime could get no memory
	// for anything that comes behind.
	if e := s.lowerLimits(); e != nil {
		return e
	}
	// syscall.Exec, not a call of our own: it stops the runtime from making
	// threads, and puts back the soft limit of descriptors, which Go raises.
	err = syscall.Exec(path, s.Command, env)
	return failure(StepExec, what, err, s.explain(path, err))
}

// errScript spares the operator the interpreter's own message: it would be given
// a path that is closed by then (traps.md 20).
var errScript = fmt.Errorf("it is a script, which cannot be executed through a descriptor: %w", unix.ENOEXEC)

func isScript(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // may be executed, but not read: no script
	}
	defer unix.Close(fd)
	var head [2]byte
	n, _ := unix.Read(fd, head[:])
	return n == 2 && head == [2]byte{'#', '!'}
}

// find returns the path to execute.
func (s *stage) find() (string, error) {
	if s.hasExec {
		// Through /proc, so that syscall.Exec can do it.
		path := "/proc/self/fd/" + strconv.Itoa(s.control+1)
		if isScript(path) {
			return "", errScript
		}
		return path, nil
	}
	name := s.Command[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	result := error(unix.ENOENT)
	for dir := range strings.SplitSeq(s.searchPath(), ":") {
		if dir == "" {
			dir = "." // as the shell has it
		}
		path := dir + "/" + name
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
		if err == nil {
			return path, nil
		}
		result = unix.EACCES // found, but not for us: go on looking
	}
	return "", result
}

func (s *stage) searchPath() string {
	for _, v := range s.Env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			return value
		}
	}
	return defaultPath
}

// explain says what the errno of execve(2) leaves open.
func (s *stage) explain(path string, err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			return ""
		}
		return "the file is there, its interpreter is not: see its #! line, or file(1)"
	case errors.Is(err, unix.ENOEXEC):
		return "a binary for another machine, or a script without a #! line"
	case errors.Is(err, unix.EACCES):
		return "the user must have execute permission on the file and search permission on its directories"
	}
	return ""
}

// without returns the environment less the variable, in a new list.
func without(env []string, name string) []string {
	kept := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// resetSignals gives every signal its default and unblocks all. execve(2) resets
// handlers but keeps ignored signals ignored and the mask as it is: a master that
// ignores SIGPIPE or blocks SIGTERM over an upgrade would pass that on for ever.
// The runtime's own handlers go too, so the execve must follow at once.
func resetSignals() {
	// A zeroed struct sigaction, whatever its layout: SIG_DFL, no flags, no mask.
	var action [64]byte
	for signal := uintptr(1); signal <= 64; signal++ {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, new(unix.Sigset_t), nil)
}
