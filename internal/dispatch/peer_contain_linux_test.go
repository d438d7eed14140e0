package dispatch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/nodeipc"
)

// misdeed is one worker that does what none should, beside one that serves.
type misdeed struct {
	*node
	t     *testing.T
	stop  chan struct{} // closed when it is over
	wg    sync.WaitGroup
	alone toll
	heap  uint64
}

// toll is how long clients wait for their answers.
type toll struct{ median, worst time.Duration }

func (l toll) String() string { return fmt.Sprintf("median %v, worst %v", l.median, l.worst) }

// asks measures answers of the worker that serves.
func (r *rig) asks() toll {
	r.t.Helper()
	var took []time.Duration
	for range 100 {
		begun := time.Now()
		if by := r.ask(); by != 9 {
			r.t.Fatalf("answered by %d", by)
		}
		took = append(took, time.Since(begun).Round(time.Microsecond))
	}
	slices.Sort(took)
	return toll{took[len(took)/2], took[len(took)-1]}
}

// contained lets a misdeed happen, and wants that nobody else notices, and that nothing
// of it is left.
func contained(t *testing.T, do func(*misdeed)) {
	t.Helper()
	r := newRig(t, RoundRobin, Options{})
	good := r.peerOn(9)
	var wg sync.WaitGroup
	good.run(&wg)
	r.asks()
	m := &misdeed{t: t, stop: make(chan struct{}), alone: r.asks(), heap: heap()}
	before := openFiles(t)
	m.node = r.peer(1)
	do(m)
	close(m.stop)
	if m.fd >= 0 {
		_ = unix.Shutdown(m.fd, unix.SHUT_RDWR)
	}
	m.dies()
	m.wg.Wait()
	m.close()
	after := 0
	r.until(fmt.Sprintf("%d descriptors again", before), func() bool { after = openFiles(t); return after == before })
	good.dies()
	wg.Wait()
}

// during measures what the others notice of it while it goes on, and what it costs.
func (m *misdeed) during() {
	m.t.Helper()
	now := m.r.asks()
	grown := int64(heap()) - int64(m.heap)
	m.t.Logf("alone: %v; beside it: %v; %d KiB more", m.alone, now, grown>>10)
	if now.worst > 5*time.Second {
		m.t.Errorf("others waited %v", now.worst)
	}
	if grown > 16<<20 {
		m.t.Errorf("%d KiB more are used", grown>>10)
	}
}

// heap is what is in use.
func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// always does something until it fails, or the misdeed is over.
func (m *misdeed) always(do func() error) {
	m.wg.Go(func() {
		for {
			select {
			case <-m.stop:
				return
			default:
			}
			if err := do(); err != nil && !errors.Is(err, unix.EAGAIN) {
				return
			}
		}
	})
}

// endsWith wants this end of its channel.
func (m *misdeed) endsWith(want error) {
	m.t.Helper()
	if err := m.ended(); !errors.Is(err, want) {
		m.t.Errorf("ended with %v, want %v", err, want)
	}
}

// It says something all the time, and nobody wants to hear it.
func TestPeerFloods(t *testing.T) {
	for name, line := range map[string]string{
		"numbers":                  strings.Repeat("1\n", 30_000) + "1",
		"long":                     `"` + strings.Repeat("x", 1<<20-2) + `"`,
		"descriptors":              strings.Repeat(lineHandle+"\n", 100) + lineHandle,
		"long and to be looked at": `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":[` + strings.Repeat("[],", 300_000) + `0]}`,
	} {
		for _, heard := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, heard %v", name, heard), func(t *testing.T) {
				contained(t, func(m *misdeed) {
					m.pause(true)
					b := []byte(line + "\n")
					m.always(func() error {
						_, err := unix.Write(m.fd, b)
						return err
					})
					if heard {
						m.always(func() error {
							m.r.d.Resume(1)
							m.mu.Lock()
							m.heard = nil
							m.mu.Unlock()
							return nil
						})
						m.always(func() error {
							_, err := unix.Read(m.fd, make([]byte, 4096))
							return err
						})
					}
					m.during()
				})
			})
		}
	}
}

// A worker is dead, and somebody that it has left its channel to says something all the
// time.
func TestPeerFloodsAfterDeath(t *testing.T) {
	contained(t, func(m *misdeed) {
		m.pause(true)
		b := []byte(strings.Repeat("1\n", 30_000))
		for range 2 {
			m.always(func() error {
				_, err := unix.Write(m.fd, b)
				return err
			})
		}
		m.r.until("it says something", func() bool { return len(m.lines()) > 0 })
		begun := time.Now()
		m.dies()
		t.Logf("removed within %v, %d lines were heard", time.Since(begun), len(m.lines()))
		m.during()
	})
}

// It acknowledges what nobody sent, or answers it.
func TestPeerAnswersNothing(t *testing.T) {
	for name, line := range map[string]string{
		"acknowledges": lineAck,
		"misses":       lineNack,
		"accepts":      offer{seq: 7}.answer(true),
		"refuses":      offer{seq: 7}.answer(false),
		"accepts 0":    offer{}.answer(true),
	} {
		t.Run(name, func(t *testing.T) {
			contained(t, func(m *misdeed) {
				m.always(func() error { return m.send([]string{line, line, line}, nil) })
				m.endsWith(ErrPeerGarbage)
				m.during()
			})
		})
	}
}

// It answers what another was offered: that one's is still its own.
func TestPeerAnswersForeign(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	bad, n := r.peer(1), r.peerOn(2)
	c := r.dial()
	o := n.newconn()
	for range maxStrikes + 1 {
		bad.say(o.answer(false))
	}
	if err := bad.ended(); !errors.Is(err, ErrPeerGarbage) {
		t.Errorf("ended with %v", err)
	}
	n.serves(o)
	if by := who(t, c); by != 2 {
		t.Errorf("answered by %d", by)
	}
}

// It says what is no message.
func TestPeerSaysGarbage(t *testing.T) {
	for _, line := range []string{
		`{"cmd":"NODE_HANDLE`, `{"cmd":"NODE_HANDLE"`, `{"cmd":"NODE_HANDLE_ACK"`, `{"cmd":"NODE_CLUSTER","ack":}`, `{"cmd":"NODE_CLUSTER","ack":1}`, `{"cmd":"NODE_CLUSTER","ack":"x","seq":1}`,
		`{"cmd":"NODE_CLUSTER","ack":` + strings.Repeat("[", 1<<19), "\x00" + strings.Repeat("\xff", nodeipc.MaxLine),
	} {
		contained(t, func(m *misdeed) {
			m.joins(1, "h1")
			_ = m.send([]string{line}, nil)
			m.ended()
			m.during()
		})
	}
}

// A line that never ends is heard up to its bound.
func TestPeerNeverEndsLine(t *testing.T) {
	for _, size := range []int{nodeipc.MaxLine - 1, 8 * nodeipc.MaxLine} {
		contained(t, func(m *misdeed) {
			b := bytes.Repeat([]byte("x"), 4<<10)
			left, done := size, make(chan struct{})
			m.always(func() error {
				n, err := unix.Write(m.fd, b[:min(left, len(b))])
				if left -= max(n, 0); left == 0 {
					close(done)
					return io.EOF
				}
				return err
			})
			if size > nodeipc.MaxLine {
				m.endsWith(nodeipc.ErrTooLong)
			} else {
				<-done
				m.r.settle()
			}
			m.during()
		})
	}
}

// threads is how many this process has.
func threads(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
