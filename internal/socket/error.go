package socket

import (
	"errors"
	"strings"
)

var (
	// ErrUnknown means the kernel has no answer for this kind of socket. It must
	// be shown as unknown, never as 0.
	ErrUnknown = errors.New("unknown for this kind of socket")
	// ErrForeign means a path that now belongs to another socket or file; nothing
	// was removed.
	ErrForeign = errors.New("the path belongs to another file now")
)

// Error says which step failed on which address and why, in one sentence:
//
//	cannot bind tcp 0.0.0.0:80: permission denied (grant CAP_NET_BIND_SERVICE or use a port above 1023)
//
// It unwraps to the errno. The Hint is empty when we are not sure; a caller that
// knows more (who holds the port) may set it.
type Error struct {
	Op      string // "bind", "listen on", "use the inherited socket for", "set TCP_FASTOPEN on", ...
	Network string
	Address string
	Err     error // a syscall.Errno as a rule
	Hint    string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("cannot " + e.Op + " " + e.Network)
	if e.Address != "" {
		b.WriteString(" " + e.Address)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Err }
