//go:build amd64

package census

import "golang.org/x/sys/unix"

// Calls that younger architectures were made without. A poll that a signal
// interrupted, such as SIGCONT, goes on as restart_syscall(2) with its arguments;
// so does a futex(2), whose arguments are something else.
var (
	oldAccepts = []int{unix.SYS_ACCEPT}
	oldPolls   = []int{unix.SYS_POLL, unix.SYS_RESTART_SYSCALL}
	oldSelects = []int{unix.SYS_SELECT}
)
