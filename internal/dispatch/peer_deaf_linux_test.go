package dispatch

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// tellUntil says lines until the worker has no channel any more, at most so many, and
// returns how many were taken.
func (m *misdeed) tellUntil(most int, line string, fd int) int {
	m.t.Helper()
	for i := range most {
		var file *fdpass.File
		if fd >= 0 {
			var err error
			borrowed := fdpass.NewFile(fd)
			if file, err = borrowed.Dup(); err != nil {
				m.t.Errorf("after %d: %v", i, err)
				return i
			}
			borrowed.Release()
		}
		if m.r.d.Tell(1, []byte(line+"\n"), file) != nil {
			return i
		}
	}
	m.t.Errorf("%d lines were taken", most)
	return most
}

// A worker does not read what it is told, or cannot any more, or does not acknowledge
// it. What waits for it is bounded.
func TestPeerIsDeaf(t *testing.T) {
	const most = 2000
	a, _ := pipe(t)
	for name, c := range map[string]struct {
		so    func(m *misdeed)
		line  string
		fd    int
		cause error
	}{
		"does not read":             {func(*misdeed) {}, `"x"`, -1, ErrPeerDeaf},
		"does not read much":        {func(*misdeed) {}, `"` + strings.Repeat("x", maxLetter-3) + `"`, -1, ErrPeerDeaf},
		"does not read descriptors": {func(*misdeed) {}, lineShared, a, ErrPeerDeaf},
		"does not want to read":     {func(m *misdeed) { _ = unix.Shutdown(m.fd, unix.SHUT_RD) }, `"x"`, -1, ErrPeerDeaf},
		"does not want descriptors": {func(m *misdeed) { _ = unix.Shutdown(m.fd, unix.SHUT_RD) }, lineShared, a, ErrPeerDeaf},
		"does not acknowledge":      {func(m *misdeed) { m.swallows() }, lineShared, a, ErrPeerDeaf},
		"has no room":               {func(m *misdeed) { m.missesAll() }, lineShared, a, ErrPeerFiles},
	} {
		t.Run(name, func(t *testing.T) {
			contained(t, func(m *misdeed) {
				c.so(m)
				before := openFiles(t)
				taken := m.tellUntil(most, c.line, c.fd)
				m.t.Logf("%d lines were taken, %d descriptors more", taken, openFiles(t)-before)
				err := m.ended()
				if !errors.Is(err, c.cause) {
					t.Errorf("ended with %v", err)
				}
				m.during()
			})
		})
	}
}

// swallows lets it read all the time, and say nothing.
func (m *misdeed) swallows() { m.reading(func(int) {}) }

// missesAll lets it say of each descriptor that it has not come.
func (m *misdeed) missesAll() {
	m.reading(func(fds int) {
		for range fds {
			_ = m.send([]string{lineNack}, nil)
		}
	})
}

func (m *misdeed) reading(then func(fds int)) {
	m.always(func() error {
		var buf [4096]byte
		var oob [1200]byte
		n, oobn, _, _, err := unix.Recvmsg(m.fd, buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return io.EOF
		}
		fds := descriptors(oob[:oobn])
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		then(len(fds))
		return nil
	})
}

// A worker wants no more from its channel, and asks for answers all the time.
func TestPeerAsksAndDoesNotRead(t *testing.T) {
	for _, shut := range []bool{false, true} {
		contained(t, func(m *misdeed) {
			if shut {
				_ = unix.Shutdown(m.fd, unix.SHUT_RD)
			}
			m.always(func() error { return m.send(slices.Repeat([]string{lineHandle}, 100), nil) })
			if err := m.ended(); !errors.Is(err, ErrPeerDeaf) {
				t.Errorf("ended with %v", err)
			}
			m.during()
		})
	}
}

// A worker takes connections, says so, and acknowledges none.
func TestPeerNeverAcknowledges(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peerOn(1)
	for i := range 2 * maxLetters {
		c := r.dial()
		if i < maxLetters {
			o := n.newconn()
			n.say(o.answer(true))
			n.drop(o)
		}
		_ = c.Close()
	}
	n.quiet()
	n.say(lineAck)
	n.newconn()
	n.quiet()
	if accepted, _, _ := r.d.Counts(1); accepted != maxLetters+1 {
		t.Errorf("%d accepted", accepted)
	}
}

// A worker shuts down one direction of its channel, or both, with a connection before it.
func TestPeerShutsDown(t *testing.T) {
	for name, how := range map[string]int{"reading": unix.SHUT_RD, "writing": unix.SHUT_WR, "both": unix.SHUT_RDWR} {
		t.Run(name, func(t *testing.T) {
			contained(t, func(m *misdeed) {
				m.r.d.Admit(9, false)
				m.joins(1, "h1")
				c := m.r.dial()
				m.newconn()
				_ = unix.Shutdown(m.fd, how)
				m.r.settle()
				m.r.d.Admit(9, true)
				m.during()
				m.dies()
				m.close()
				if by := who(t, c); by != 9 {
					t.Errorf("answered by %d", by)
				}
			})
		})
	}
}

// A worker is stopped: what it has before it waits for it, and the others go on. When it
// dies they get that, too.
func TestPeerIsStopped(t *testing.T) {
	contained(t, func(m *misdeed) {
		m.joins(1, "h1")
		m.r.d.Admit(9, false)
		c := m.r.dial()
		m.r.until("one is offered", func() bool { return readable(m.fd) })
		m.r.d.Admit(9, true)
		m.during()
		m.dies()
		m.close()
		if by := who(t, c); by != 9 {
			t.Errorf("answered by %d", by)
		}
	})
}

// Alone and stopped, it has at most so many before it, and the rest waits in the kernel.
func TestPeerIsStoppedAlone(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peerOn(1)
	for range 4 * depth {
		r.dial()
	}
	r.settle()
	accepted, _, _ := r.d.Counts(1)
	t.Logf("%d before it", accepted)
	if accepted < 1 || accepted > depth {
		t.Errorf("%d accepted", accepted)
	}
	two := r.peerOn(2)
	r.d.Admit(1, false)
	n.dies()
	for range 4 * depth {
		two.serves(two.newconn())
	}
	two.quiet()
}
