//go:build !linux

package fdpass

import (
	"syscall"
	"time"
)

// Conn is one end of a link; see the Linux version.
type Conn struct{}

// Pair returns ErrNotSupported.
func Pair() (a, b *Conn, err error) { return nil, nil, ErrNotSupported }

// NewConn takes f, closes it and returns ErrNotSupported.
func NewConn(f *File) (*Conn, error) {
	_ = f.Close()
	return nil, ErrNotSupported
}

// Detach returns ErrNotSupported.
func (c *Conn) Detach() (*File, error) { return nil, ErrNotSupported }

// Close returns ErrNotSupported.
func (c *Conn) Close() error { return ErrNotSupported }

// SetWriteDeadline returns ErrNotSupported.
func (c *Conn) SetWriteDeadline(time.Time) error { return ErrNotSupported }

// SetReadDeadline returns ErrNotSupported.
func (c *Conn) SetReadDeadline(time.Time) error { return ErrNotSupported }

// SyscallConn returns ErrNotSupported.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return nil, ErrNotSupported }

// Send returns ErrNotSupported.
func (c *Conn) Send([]byte, ...*File) error { return ErrNotSupported }

// TrySend returns ErrNotSupported.
func (c *Conn) TrySend([]byte, ...*File) error { return ErrNotSupported }

// Recv returns ErrNotSupported.
func (c *Conn) Recv([]byte, int) (int, []*File, error) { return 0, nil, ErrNotSupported }

// Take returns ErrNotSupported.
func (c *Conn) Take([]byte, int, func([]byte) int) (int, []*File, error) {
	return 0, nil, ErrNotSupported
}

// TryTake returns ErrNotSupported.
func (c *Conn) TryTake([]byte, int, func([]byte) int) (int, []*File, error) {
	return 0, nil, ErrNotSupported
}

func closeFd(int) error { return ErrNotSupported }

func dupFd(int) (int, error) { return -1, ErrNotSupported }
