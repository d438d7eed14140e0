//go:build linux

package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/systemd"
)

// Kept returns what a master says to its keeper by, nil when it has none. It takes
// Variable out of the environment, and makes what the keeper passed ready for
// [systemd.Inherited]. It is to be called once, before anything else opens files.
// Error: a variable that is malformed.
func Kept() (*systemd.Notifier, error) {
	text := os.Getenv(Variable)
	_ = os.Unsetenv(Variable)
	if text == "" {
		return nil, nil
	}
	var socket, exe int
	if n, err := fmt.Sscanf(text, "%d %d", &socket, &exe); err != nil || n != 2 {
		return nil, fmt.Errorf("%s=%.40q: %w", Variable, text, unix.EINVAL)
	}
	if typ, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("%s=%.40q: fd %d is no socket of a keeper", Variable, text, socket)
	}
	unix.CloseOnExec(socket)
	if exe > socket {
		_ = unix.Close(exe)
	}
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0) // not the name that it was executed by
	_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))                    // which the keeper could not know
	return systemd.NewNotifierOn(fdpass.NewFile(socket)), nil
}
