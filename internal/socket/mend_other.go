//go:build !linux

package socket

import (
	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// ErrDead is not returned here.
var ErrDead = fdpass.ErrNotSupported

// Damage is one thing that a holder of a socket did to all who hold it.
type Damage struct {
	Shut     bool
	Blocking bool
	What     string
}

// Examine returns nil.
func Examine(int, string, proto.Bound) []Damage { return nil }

// Mend returns fdpass.ErrNotSupported.
func Mend(_ int, _ string, b proto.Bound) (proto.Bound, bool, error) {
	return b, false, fdpass.ErrNotSupported
}
