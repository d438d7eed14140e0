package proc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// orderTime bounds the sending of the order; a stage that does not read is
// stopped or starved.
const orderTime = 60 * time.Second

// Start forks and executes the stage. It blocks for that only, about a
// millisecond; whether the command itself was executed tells Process.Started.
// The caller ends with Process.Wait (a process that nobody waits for stays a
// zombie) and then Process.Close.
//
// Errors: EINVAL for an empty command or strings with a zero byte, E2BIG for one
// of megabytes, EBADF for a closed file; of the fork EAGAIN (RLIMIT_NPROC,
// pids.max), ENOMEM, EMFILE, ENFILE. No process exists then.
func Start(l Launch) (*Process, error) {
	p, err := start(l)
	if err != nil {
		name := "a process"
		if len(l.Command) > 0 {
			name = l.Command[0]
		}
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	return p, nil
}

func start(l Launch) (*Process, error) {
	message, err := encode(l)
	if err != nil {
		return nil, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(ends[1])
	control := fdpass.NewFile(ends[0])
	defer control.Close()
	if err := unix.SetNonblock(ends[0], true); err != nil {
		return nil, err
	}
	fds, err := inheritance(l, null, ends[1])
	if err != nil {
		return nil, err
	}
	// What fits is written before the fork, so that the stage need not wait for
	// another goroutine of a busy master.
	if n, err := unix.Write(ends[0], message); err == nil {
		message = message[n:]
	}
	pidfd := -1
	pid, _, err := syscall.StartProcess("/proc/self/exe",
		[]string{stageName, strconv.Itoa(3 + len(l.Files))},
		&syscall.ProcAttr{
			Files: fds,
			Env:   marked([]string{"GOMAXPROCS=1"}, l.Mark), // the stage's only; fewer threads, faster start
			Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
		})
	if err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	if pidfd < 0 {
		pidfd, err = unix.PidfdOpen(pid, 0)
	}
	if err == nil {
		var p *Process
		if p, err = newProcess(pid, fdpass.NewFile(pidfd), true); err == nil {
			p.started = make(chan struct{})
			go p.instruct(os.NewFile(uintptr(control.Release()), "stage"), message, l.Command[0])
			return p, nil
		}
	}
	// Nobody could wait for it: the stage has no order yet, so nothing is lost.
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, werr := unix.Wait4(pid, nil, 0, nil); werr != unix.EINTR {
			return nil, fmt.Errorf("pidfd: %w", err)
		}
	}
}

func marked(env []string, mark string) []string {
	if mark != "" {
		env = append(env, mark)
	}
	return env
}

func encode(l Launch) ([]byte, error) {
	if len(l.Command) == 0 || l.Command[0] == "" {
		return nil, fmt.Errorf("the command is empty: %w", unix.EINVAL)
	}
	for _, list := range [][]string{l.Command, l.Env, {l.Dir}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, fmt.Errorf("%.40q contains a zero byte: %w", s, unix.EINVAL)
			}
		}
	}
	body, err := json.Marshal(newOrder(l))
	if err != nil {
		return nil, err
	}
	if len(body) > maxOrder {
		return nil, unix.E2BIG
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...), nil
}

// inheritance lists the stage's descriptors by number. Those of the command are
// in their final place from the fork on (Go's fork sorts out overlapping
// numbers), so the stage moves nothing.
func inheritance(l Launch, null, control int) ([]uintptr, error) {
	fds := make([]uintptr, 0, 6+len(l.Files))
	for _, f := range []*fdpass.File{l.Stdin, l.Stdout, l.Stderr} {
		if f == nil {
			fds = append(fds, uintptr(null))
		} else if f.Fd() >= 0 {
			fds = append(fds, uintptr(f.Fd()))
		}
	}
	for _, f := range l.Files {
		if f.Fd() >= 0 {
			fds = append(fds, uintptr(f.Fd()))
		}
	}
	fds = append(fds, uintptr(control))
	for _, f := range []*fdpass.File{l.Exec, l.DirFile} {
		if f != nil && f.Fd() < 0 {
			return nil, unix.EBADF
		} else if f != nil {
			fds = append(fds, uintptr(f.Fd()))
		}
	}
	want := 4 + len(l.Files)
	for _, f := range []*fdpass.File{l.Exec, l.DirFile} {
		if f != nil {
			want++
		}
	}
	if len(fds) != want {
		return nil, unix.EBADF
	}
	return fds, nil
}

// instruct talks to the stage, as the drawing in launch_linux.go shows. It takes
// conn, and ends when the stage has executed the command, failed or died; then
// started is closed.
func (p *Process) instruct(conn *os.File, message []byte, command string) {
	defer close(p.started)
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(orderTime))
	if _, err := conn.Write(message); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		p.startErr = &StageError{Step: StepStage, Sentence: "cannot execute " + command + ": the stage did not take its order in " + orderTime.String()}
		return
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxFailure))
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		p.startErr = fmt.Errorf("cannot execute %s: reading from the stage: %w", command, err)
		return
	}
	p.startErr = verdict(answer, command)
}

func verdict(answer []byte, command string) error {
	rest, sent := bytes.CutPrefix(answer, []byte{executing})
	if sent && len(rest) == 0 {
		return nil
	}
	e := new(StageError)
	if json.Unmarshal(rest, e) == nil && e.Sentence != "" {
		return e
	}
	return &StageError{Step: StepStage, Sentence: "cannot execute " + command + ": the stage was killed before it could"}
}
