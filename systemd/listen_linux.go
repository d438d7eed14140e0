package systemd

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// UnknownName is the name of a socket that the manager did not name.
const UnknownName = "unknown"

// Socket is a file that the manager passed: a socket of a socket unit, or what
// this service put into the fd store. Several may have one name.
type Socket struct {
	Name string
	File *fdpass.File // the receiver of the Socket closes it
}

// Inherited returns what the manager passed (sd_listen_fds_with_names(3)), in its
// order, close-on-exec; the caller owns the files. LISTEN_FDS, LISTEN_PID,
// LISTEN_FDNAMES and LISTEN_PIDFDID are removed from the environment in any case,
// so a second call returns nothing. Variables for another process (LISTEN_PID)
// are no error and give nothing. Blocking mode and every other flag of the files
// stay as they are.
//
// Errors, with no file taken: EINVAL for variables that are malformed or
// disagree, EBADF when a descriptor is not there.
func Inherited() ([]Socket, error) {
	pid, pidSet := os.LookupEnv("LISTEN_PID")
	count, countSet := os.LookupEnv("LISTEN_FDS")
	names, namesSet := os.LookupEnv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		_ = os.Unsetenv(name)
	}
	if !pidSet || !countSet {
		return nil, nil
	}
	p, err := strconv.Atoi(pid)
	if err != nil || p <= 0 {
		return nil, fmt.Errorf("LISTEN_PID=%.40q: %w", pid, unix.EINVAL)
	}
	if p != os.Getpid() {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<20 {
		return nil, fmt.Errorf("LISTEN_FDS=%.40q: %w", count, unix.EINVAL)
	}
	var named []string
	if namesSet && n > 0 {
		if named = strings.Split(names, ":"); len(named) != n {
			return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for LISTEN_FDS=%d: %w", len(named), n, unix.EINVAL)
		}
	}
	for fd := firstFD; fd < firstFD+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("LISTEN_FDS=%d: fd %d: %w", n, fd, err)
		}
	}
	sockets := make([]Socket, n)
	for i := range sockets {
		sockets[i] = Socket{Name: UnknownName, File: fdpass.NewFile(firstFD + i)}
		if named != nil && named[i] != "" {
			sockets[i].Name = named[i]
		}
	}
	return sockets, nil
}
