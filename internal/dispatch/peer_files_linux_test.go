package dispatch

import (
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// It sends descriptors: with lines and without, many, its own channel.
func TestPeerSendsDescriptors(t *testing.T) {
	a, _ := pipe(t)
	many := slices.Repeat([]int{a}, 253)
	for name, c := range map[string]struct {
		line string
		fds  func(m *misdeed) []int
		end  bool
	}{
		"with each line":   {lineHandle, func(*misdeed) []int { return []int{a} }, false},
		"two with a line":  {lineHandle, func(*misdeed) []int { return []int{a, a} }, true},
		"without a line":   {`"x"`, func(*misdeed) []int { return []int{a} }, true},
		"many":             {lineHandle, func(*misdeed) []int { return many }, true},
		"many with none":   {`"x"`, func(*misdeed) []int { return many }, true},
		"its channel":      {lineHandle, func(m *misdeed) []int { return []int{m.fd} }, false},
		"its channel only": {`"x"`, func(m *misdeed) []int { return slices.Repeat([]int{m.fd}, 253) }, true},
		"with half a line": {"", func(m *misdeed) []int { return []int{a} }, true},
		"many with half":   {"", func(m *misdeed) []int { return many }, true},
		"with an answer":   {lineAck, func(m *misdeed) []int { return []int{a} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			contained(t, func(m *misdeed) {
				m.joins(1, "h1")
				m.r.d.Admit(1, false)
				m.swallows()
				b := []byte(c.line + "\n")
				if c.line == "" {
					b = []byte("x")
				}
				oob := unix.UnixRights(c.fds(m)...)
				sent := 0
				for range 300 {
					if unix.Sendmsg(m.fd, b, oob, nil, unix.MSG_NOSIGNAL) != nil {
						break
					}
					sent++
					m.r.settle()
					m.mu.Lock()
					ended := len(m.ends) > 0
					m.mu.Unlock()
					if ended {
						break
					}
				}
				m.t.Logf("after %d messages", sent)
				if c.end {
					m.endsWith(ErrPeerGarbage)
				}
				m.during()
			})
		})
	}
}

// A line that comes in two pieces has the descriptor that came with the first.
func TestPeerDescriptorWithHalfALine(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	a, _ := pipe(t)
	n := r.peer(1)
	half := len(lineHandle) / 2
	for range 50 {
		if err := unix.Sendmsg(n.fd, []byte(lineHandle[:half]), unix.UnixRights(a), nil, 0); err != nil {
			t.Fatal(err)
		}
		r.settle()
		n.say(lineHandle[half:])
		n.reads(lineAck)
	}
	n.isClean()
}

// deafListener never accepts.
func deafListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// connected is a connection whose other end nobody reads.
func connected(t *testing.T, l net.Listener) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: l.Addr().(*net.TCPAddr).Port}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// linger lets close(2) of a connection wait whose client does not read.
func linger(t *testing.T, fd int) {
	t.Helper()
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	for {
		if _, err := unix.SendmsgN(fd, make([]byte, 1<<16), nil, nil, unix.MSG_DONTWAIT); err != nil {
			break
		}
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 100}); err != nil {
		t.Fatal(err)
	}
}

// It sends sockets whose close(2) takes its time: neither the dispatcher's thread waits
// for that, nor a thread for each.
func TestPeerSendsWhatLingers(t *testing.T) {
	contained(t, func(m *misdeed) {
		l := deafListener(t)
		before := threads(t)
		m.swallows()
		sent := 0
		for ; sent < 200; sent++ {
			fd := connected(t, l)
			linger(t, fd)
			m.r.d.do(func() { // on the thread that reads it, so it holds the last
				_ = unix.Sendmsg(m.fd, []byte(lineHandle+"\n"), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
				_ = unix.Close(fd)
			})
			m.r.settle()
		}
		more, heard := threads(t)-before, len(m.lines())
		t.Logf("after %d such sockets %d threads more, and %d were heard", sent, more, heard)
		if more > 20 || heard > sent/2 {
			t.Errorf("%d threads more, and %d were heard", more, heard)
		}
		m.during()
		_ = l.Close() // and what waits in its queue with it: close(2) returns
		m.r.until("all were heard", func() bool { return len(m.lines()) == sent })
	})
}

// A worker lets connections linger and closes them before it says that it takes them:
// the copies that are kept here are the last then. That costs one thread, and when it has
// some of these it gets no more.
func TestPeerLetsConnectionsLinger(t *testing.T) {
	for name, so := range map[string]func(m *misdeed, offers []offer){
		"and accepts": func(m *misdeed, offers []offer) {
			for _, o := range offers {
				m.say(lineAck, o.answer(true))
			}
		},
		"and gets no more": func(m *misdeed, _ []offer) { m.r.d.Remove(2) },
		"and says garbage": func(m *misdeed, _ []offer) { m.say(`{"cmd":"NODE_HANDLE`) },
		"and dies": func(m *misdeed, offers []offer) {
			m.say(lineAck, offers[0].answer(true))
			m.dies()
		},
	} {
		t.Run(name, func(t *testing.T) {
			contained(t, func(m *misdeed) {
				l := deafListener(t)
				before := threads(t)
				took, sent := time.Duration(0), 0
				m.r.d.Add(2, RoundRobin)
				m.joins(2, "h2")
				for range 10 {
					m.r.answeredAt(time.Hour)
					for range depth {
						_ = m.r.d.Pass(2, Passed{Connection: fdpass.NewFile(connected(t, l))})
					}
					m.r.settle()
					var offers []offer
					for readable(m.fd) || len(m.in) > 0 {
						o := m.newconn()
						linger(t, o.fd)
						m.drop(o)
						offers = append(offers, o)
					}
					if len(offers) == 0 {
						break
					}
					begun := time.Now()
					so(m, offers)
					m.r.settle()
					took, sent = took+time.Since(begun), sent+len(offers)
					if name == "and dies" {
						break
					}
				}
				more := threads(t) - before
				t.Logf("after %d of these, in %v, %d threads more", sent, took, more)
				if more > 20 || took > 100*time.Millisecond+time.Duration(sent)*4*time.Millisecond {
					t.Errorf("%v and %d threads more for %d of them", took, more, sent)
				}
				m.during()
				_ = l.Close() // and what waits in its queue with it
				m.r.d.Remove(2)
			})
		})
	}
}
