//go:build !linux

package worker

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// channel and handedConn exist on Linux only, where there is a master.
type channel struct {
	net.Listener
	page *memberPage
}

type handedConn struct {
	*net.TCPConn
	tally tally
}

func newChannel(file, page *fdpass.File, _ proto.Grant) (*channel, error) {
	_ = file.Close()
	_ = page.Close()
	return nil, fdpass.ErrNotSupported
}

func (c *channel) has() bool                             { return false }
func (c *channel) waits() bool                           { return false }
func (c *channel) next() (*handedConn, bool)             { return nil, false }
func (c *channel) watch(func(), <-chan struct{})         {}
func (c *channel) show(_, _ *atomic.Uint64)              {}
func (c *channel) take() *handedConn                     { return nil }
func (c *channel) untake(*handedConn)                    {}
func (c *channel) waiting() int64                        { return 0 }
func (c *channel) room()                                 {}
func (c *channel) accept() (*handedConn, error)          { return nil, os.ErrClosed }
func (c *channel) SetDeadline(time.Time) error           { return fdpass.ErrNotSupported }
func (c *channel) SyscallConn() (syscall.RawConn, error) { return nil, fdpass.ErrNotSupported }
func (c *handedConn) count() *tally                      { return &c.tally }
func (c *handedConn) file() *os.File                     { return nil }
