package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownSession makes a program a session of its own, as supervised workers are: the
// kernel shares the processors out by session (sched(7), autogroup), and a server
// in the session of the load client would be compared under another rule. A ^C is
// for this command alone, and when this command is killed, the program is told to
// stop: prctl(2), PR_SET_PDEATHSIG, which is sent when the thread that forked ends.
// See launcher.
func ownSession(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}

// grip is a descriptor of a process, which no other can take the place of. The
// zero value is none.
type grip struct{ fd int }

// hold opens a grip on a process that lives.
func hold(pid int) grip {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return grip{}
	}
	return grip{fd}
}

// kill ends the process, if it lives, and lets go of it.
func (g grip) kill() {
	if g.fd > 0 {
		_ = unix.PidfdSendSignal(g.fd, unix.SIGKILL, nil, 0)
		_ = unix.Close(g.fd)
	}
}

// runsBatch reports whether a thread of the process is under SCHED_BATCH.
func runsBatch(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			continue
		}
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil && attr.Policy == unix.SCHED_BATCH {
			return true
		}
	}
	return false
}

// searchPath is where peers are looked for: sbin is not in the PATH of everybody.
func searchPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		file := filepath.Join(dir, name)
		if info, statErr := os.Stat(file); statErr == nil && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", err
}
