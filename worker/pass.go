package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// touch tells whether a connection is as it was accepted. It costs a use one load.
type touch struct {
	done atomic.Bool
	mu   sync.Mutex // held while the connection is passed on: whoever wants to use it waits
}

func (t *touch) touch() {
	if !t.done.Load() {
		t.mu.Lock()
		t.done.Store(true)
		t.mu.Unlock()
	}
}

// PassOn gives the connection to another worker that listens where this one was
// accepted, whatever the listener's policy; the supervisor chooses it. There it comes
// out of Accept like any other. No byte is lost: the connection must be untouched,
// which it is until something is read or written, Resume or CloseWrite is called, or
// NetConn or SyscallConn used. With PauseOnConnect it is so from the start, and a Read
// that waits for Resume does not touch it; deadlines do not, either. What would touch
// it waits while PassOn runs.
//
// When it returns nil the Socket is closed here, and the connection lives on. If the
// worker that it went to dies before it accepted it, the next one gets it, never this
// one again.
//
// On an error the Socket is as it was, and this worker serves it, with one exception:
// when the link or ctx ends after the supervisor was asked and before it answers,
// another worker may have the connection. Then the Socket is closed, and the error is
// net.ErrClosed too.
//
// Errors: ErrTouched; net.ErrClosed; *Error, with ENOENT when no other ready worker
// listens there, with EAGAIN when too many wait for the others already, with EBADF
// when the listener was closed here, as at a drain;
// ErrStandAlone; errors.ErrUnsupported when the supervisor does not know the listener
// (ListenOn, ListenFD, ListenServer, ReusePort), or it wraps its connections (TLS);
// EMFILE; ErrLost, ErrClosed; ctx's.
func (c *Socket) PassOn(ctx context.Context) error {
	c.passing.mu.Lock()
	defer c.passing.mu.Unlock()
	switch {
	case c.closed.Load():
		return fmt.Errorf("worker: pass: %w", net.ErrClosed)
	case c.passing.done.Load():
		return ErrTouched
	case c.period.w.conn == nil:
		return fmt.Errorf("worker: pass: %w", ErrStandAlone)
	}
	own, ok := c.conn.(counted) // not one below another, which may have been read from
	if !ok || own.count().l.handle == 0 {
		return fmt.Errorf("worker: pass: the supervisor does not know the listener: %w", errors.ErrUnsupported)
	}
	unknown, err := c.period.w.pass(ctx, proto.Pass{Handle: own.count().l.handle}, c.conn)
	if err == nil || unknown {
		_ = c.Close()
	}
	if unknown {
		return fmt.Errorf("%w: another worker may have the connection: %w", err, net.ErrClosed)
	}
	return err
}

// pass sends a connection to the supervisor, and borrows it. unknown means that it
// may be another worker's although there is an error.
func (w *Worker) pass(ctx context.Context, m proto.Pass, c net.Conn) (unknown bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	raw, ok := c.(syscall.Conn)
	if !ok {
		return false, fmt.Errorf("worker: pass: %w", errors.ErrUnsupported)
	}
	file, err := dupConn(raw)
	if err != nil {
		return false, err
	}
	sent, a, err := w.askWith(ctx, m, file)
	if err != nil {
		var refused *Error
		return sent && !errors.As(err, &refused), err
	}
	if _, ok := a.body.(proto.Passed); !ok {
		a.close()
		return true, fmt.Errorf("worker: pass: the supervisor answered with %s", a.body.Type())
	}
	return false, nil
}

// giveBackTime bounds how long a supervisor that does not answer is waited for.
const giveBackTime = time.Second

// giveBack passes on what was handed over together with connections that the program
// takes no more of, as far as there are other workers for it.
func (l *listener) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTime)
	defer cancel()
	for _, c := range append([]*channel{l.hand}, l.spare.listed()...) {
		for h := c.take(); h != nil; h = c.take() {
			unknown, err := l.w.pass(ctx, proto.Pass{Handle: l.handle, Reluctant: true}, h)
			if err != nil && !unknown {
				c.untake(h)
				return
			}
			_ = h.file().Close()
			c.page.closed()
			l.closed.Add(1)
			l.show()
			if l.mayBeFull() {
				l.room()
			}
		}
	}
}
