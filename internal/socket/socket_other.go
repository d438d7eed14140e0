//go:build !linux

package socket

import (
	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// Bind returns fdpass.ErrNotSupported.
func Bind(proto.SocketSpec) (*fdpass.File, proto.Bound, error) {
	return nil, proto.Bound{}, fdpass.ErrNotSupported
}

// Adopt returns fdpass.ErrNotSupported.
func Adopt(*fdpass.File, proto.SocketSpec) (proto.Bound, error) {
	return proto.Bound{}, fdpass.ErrNotSupported
}

// Address returns fdpass.ErrNotSupported.
func Address(int) (network, address string, port int, err error) {
	return "", "", 0, fdpass.ErrNotSupported
}

// Matches returns false.
func Matches(int, proto.SocketSpec) bool { return false }

// Listening returns false.
func Listening(int) bool { return false }

// Relisten returns fdpass.ErrNotSupported.
func Relisten(int, int) (int, error) { return 0, fdpass.ErrNotSupported }

// Queue returns fdpass.ErrNotSupported.
func Queue(int) (length, limit int, err error) { return 0, 0, fdpass.ErrNotSupported }

// Tune returns fdpass.ErrNotSupported.
func Tune(int, proto.SocketSpec, bool) error { return fdpass.ErrNotSupported }

// Unlink returns fdpass.ErrNotSupported.
func Unlink(proto.Bound) error { return fdpass.ErrNotSupported }
