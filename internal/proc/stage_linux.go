package proc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stage does nothing, unless this process is a stage that Start made: then it
// does what its order says, executes the command and never returns. It must come
// first in main and in TestMain: before flags are parsed, files are opened or
// goroutines are started.
func Stage() {
	if len(os.Args) != 2 || os.Args[0] != stageName {
		return
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil || fd < 3 {
		unix.Exit(stageExit)
	}
	// Nice, scheduling, affinity, capabilities and signal mask belong to a
	// thread, and that which executes passes its own on.
	runtime.LockOSThread()
	s := &stage{control: fd}
	e := s.run()
	if text, err := json.Marshal(e); err == nil {
		_, _ = control(fd).Write(text)
	}
	unix.Exit(stageExit)
}

// stage is the one piece of work of such a process. The order of its steps is
// that of systemd's exec_invoke: what needs the master's rights, then the
// identity, then what is to be judged by it.
type stage struct {
	Launch  // without its files
	files   int
	hasExec bool // the executable is the descriptor behind control
	hasDir  bool // the directory is the next
	control int
}

func (s *stage) run() *StageError {
	if err := s.read(); err != nil {
		return &StageError{Step: StepStage, Sentence: "cannot read the order of the master: " + err.Error()}
	}
	// Everything behind the command's files goes at the execve.
	s.closeOnExec(3 + s.files)
	for _, step := range []func() *StageError{s.scheduling, s.raiseLimits, s.identity, s.directory} {
		if e := step(); e != nil {
			return e
		}
	}
	return s.execute()
}

// control is the stage's end of the socket, without the runtime's poller.
type control int

func (c control) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(c), p)
		if err == unix.EINTR {
			continue
		}
		if n == 0 && err == nil {
			return 0, io.EOF
		}
		return max(n, 0), err
	}
}

func (c control) Write(p []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(int(c), p, nil, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (s *stage) read() error {
	var head [4]byte
	if _, err := io.ReadFull(control(s.control), head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxOrder {
		return unix.E2BIG
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(control(s.control), body); err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return err
	}
	s.Launch, s.files, s.hasExec, s.hasDir = o.launch(), o.Files, o.HasExec, o.HasDir
	if s.files != s.control-3 || len(s.Command) == 0 {
		return errors.New("it is not for this stage")
	}
	return nil
}

// closeOnExec marks every descriptor from first on (close_range(2), with this
// flag since Linux 5.11; one by one before).
func (s *stage) closeOnExec(first int) {
	if unix.CloseRange(uint(first), 1<<31-1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	names, err := os.ReadDir("/proc/self/fd")
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	if err != nil {
		for fd := first; fd < 65536; fd++ {
			unix.CloseOnExec(fd)
		}
	}
}

// scheduling sets what only the master's rights may lower: before the identity.
func (s *stage) scheduling() *StageError {
	if s.OOMScoreAdj != nil {
		if err := writeOOMScoreAdj(*s.OOMScoreAdj); err != nil {
			return failure(StepOOMScoreAdj, fmt.Sprintf("set oom_score_adj to %d", *s.OOMScoreAdj), err, lowering(err))
		}
	}
	if s.Scheduling != "" || s.Slice != 0 {
		policy, ok := policies[s.Scheduling]
		if !ok && s.Scheduling != "" {
			return failure(StepScheduling, "use the scheduling policy "+s.Scheduling, unix.EINVAL, "other, batch or idle")
		}
		if err := setScheduler(s.Scheduling != "", policy, s.Slice); err != nil && !s.SchedulingWish {
			return failure(StepScheduling, "use the scheduling policy "+s.Scheduling, err, "")
		}
	}
	if s.Nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, *s.Nice); err != nil {
			return failure(StepNice, fmt.Sprintf("set nice to %d", *s.Nice), err, lowering(err))
		}
	}
	if len(s.CPUAffinity) > 0 {
		var set unix.CPUSet
		for _, cpu := range s.CPUAffinity {
			set.Set(cpu)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return failure(StepAffinity, fmt.Sprintf("run on the CPUs %v", s.CPUAffinity), err, "")
		}
	}
	if s.Umask >= 0 {
		unix.Umask(s.Umask & 0o777)
	}
	return nil
}

func lowering(err error) string {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return "the master may only raise it"
	}
	return ""
}

func writeOOMScoreAdj(value int) error {
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(strconv.Itoa(value)))
	return err
}

func (s *stage) directory() *StageError {
	switch {
	case s.hasDir:
		fd := s.control + 1
		if s.hasExec {
			fd++
		}
		if err := unix.Fchdir(fd); err != nil {
			return failure(StepDirectory, "enter the working directory "+s.Dir, err, "")
		}
	case s.Dir != "":
		if err := unix.Chdir(s.Dir); err != nil {
			return failure(StepDirectory, "enter the working directory "+s.Dir, err, "")
		}
	}
	return nil
}

// failure makes a StageError: "cannot WHAT: errno (hint)".
func failure(step, what string, err error, hint string) *StageError {
	e := &StageError{Step: step, Sentence: "cannot " + what + ": " + err.Error()}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Errno = errno
	}
	if hint != "" {
		e.Sentence += " (" + hint + ")"
	}
	return e
}
