package worker

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetKeepAlive is net.TCPConn's.
func (s *socketFile) SetKeepAlive(on bool) error {
	n := 0
	if on {
		n = 1
	}
	return s.set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, n)
}

// SetKeepAliveConfig is net.TCPConn's; what is not positive stays as it is.
func (s *socketFile) SetKeepAliveConfig(c net.KeepAliveConfig) error {
	if err := s.SetKeepAlive(c.Enable); err != nil {
		return err
	}
	for which, value := range map[int]int{unix.TCP_KEEPIDLE: int(c.Idle / time.Second),
		unix.TCP_KEEPINTVL: int(c.Interval / time.Second), unix.TCP_KEEPCNT: c.Count} {
		if value > 0 {
			if err := s.set(unix.IPPROTO_TCP, which, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *socketFile) set(level, which, value int) error {
	var serr error
	if err := s.control(func(fd int) { serr = unix.SetsockoptInt(fd, level, which, value) }); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", serr)
}
