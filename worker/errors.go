package worker

import (
	"errors"
	"strings"
	"syscall"

	"github.com/f72e338e/supervisord/internal/proto"
)

var (
	// ErrLost means that the link ended and no supervisor will come back to it:
	// the worker drains. What it listens on goes on working.
	ErrLost = errors.New("worker: the supervisor is gone")
	// ErrClosed means that the Worker was closed.
	ErrClosed = errors.New("worker: closed")
	// ErrDraining means that the worker drains: it cannot become ready again.
	ErrDraining = errors.New("worker: draining")
	// ErrStandAlone means that only a supervisor could do what was asked for.
	ErrStandAlone = errors.New("worker: not supervised")
	// ErrTouched means that a connection cannot be passed on: something was read from
	// it or written to it, or may have been.
	ErrTouched = errors.New("worker: the connection was touched")
	// ErrDeadline means that a drain ended with connections still open.
	ErrDeadline = errors.New("worker: drain deadline passed")
)

// Error is a request that the supervisor refused. It unwraps to the errno when
// there is one: errors.Is(err, syscall.EADDRINUSE).
type Error struct {
	Op      string // "listen", "connections", "pass"
	Network string
	Address string // as asked for, or the name of a configured listener
	Code    string // an errno's name or one of the codes of docs/protocol.md
	Errno   syscall.Errno
	Message string // the supervisor's own words
}

// Error returns the supervisor's words. Where they are a reason only, such as who
// has the address, the whole sentence is made of it, with the text of the errno.
func (e *Error) Error() string {
	what := strings.Join(strings.Fields("cannot "+e.Op+" "+e.Network+" "+e.Address), " ") + ": "
	switch {
	case e.Message == "":
		return what + e.Code
	case e.Errno == 0 || strings.HasPrefix(e.Message, "cannot "):
		return e.Message
	}
	return what + e.Errno.Error() + " (" + e.Message + ")"
}

// Unwrap returns the errno, or nil.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

func refusal(body proto.Message, m proto.Error) *Error {
	e := &Error{Op: body.Type(), Code: m.Code, Errno: syscall.Errno(m.Errno), Message: m.Message}
	if l, ok := body.(proto.Listen); ok {
		e.Network, e.Address = l.Network, l.Address
		if l.Name != "" {
			e.Address = l.Name
		} else if !proto.IsUnix(l.Network) {
			e.Address = proto.HostPort(l.Address, l.Port)
		}
	}
	return e
}
