package dispatch

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// peerWorld is a world in which workers with a Peer are, too. No time passes in it but by
// an operation.
type peerWorld struct {
	*world
	peers []*mate
	lost  []*client // offered to a worker that broke the protocol: they are nobody's
}

// mate is the worker's end of a peer's channel, as FuzzPeer knows it.
type mate struct {
	player
	in     []byte
	files  []int
	offers []*given // that it has read and not answered
	unsaid []*given // that it has read and not acknowledged, in order; of letters, too
	told   int      // lines that it was told
	plain  int      // the last of them without a descriptor that it has read
	mute   bool     // it has shut down its end, and says nothing more
	deaf   bool     // it is told nothing more
	half   bool     // it has begun a line
	misses int      // letters that it has missed

	mu   sync.Mutex
	rest bool // Hear wants no more
	ends int
}

// given is a descriptor that came with a line.
type given struct {
	at   *place // nil: with a letter
	seq  int64
	c    *client
	fd   int
	line string // of a letter
}

const maxMates = 8 // one more comes at the end

func newPeerWorld(t testing.TB, policy, batch byte) *peerWorld {
	w := &peerWorld{world: newWorld(t, 0, policy, batch)}
	w.d.do(func() { w.d.alarmed = true }) // the clock never rings, see passTime
	return w
}

// mate returns one of those that may speak, or nil.
func (w *peerWorld) mate(arg int) *mate {
	var list []*mate
	for _, m := range w.peers {
		if m.fd >= 0 && m.lawful && !m.mute {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[arg%len(list)]
}

// arrive: bit 0-1 the handles, bit 2 not admitted, bit 3-4 the slot.
func (w *peerWorld) arrive(arg int) {
	if len(w.peers) >= maxMates {
		return
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	w.must(err)
	w.workers++
	m := &mate{player: player{worker: w.workers, tag: byte(128 + len(w.peers)), fd: pair[1], admitted: arg&4 == 0, lawful: true}}
	w.must(w.d.AddPeer(Peer{Worker: m.worker, Channel: fdpass.NewFile(pair[0]), Hear: m.hear}))
	w.peers = append(w.peers, m)
	for i, p := range w.handles {
		if arg&3 == 0 || arg&(i+1) != 0 {
			w.enter(m, p, arg>>3&3)
		}
	}
}

// enter lets a worker take part in a handle.
func (w *peerWorld) enter(m *mate, p *place, slot int) {
	err := w.d.JoinPeer(p.id, PeerMember{Worker: m.worker, Slot: slot, Key: fmt.Sprint("h", p.id), Admitted: m.admitted})
	if (err != nil) != p.removed && m.lawful && !m.mute {
		w.t.Fatalf("worker %d joins handle %d: %v", m.tag, p.id, err)
	}
}

func (m *mate) hear(line []byte, end error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end != nil {
		m.ends++
	}
	return !m.rest
}

// say writes lines of a worker in one piece.
func (w *peerWorld) say(m *mate, oob []byte, lines ...string) {
	if m.half {
		lines, m.half = append([]string{`d"`}, lines...), false
	}
	err := unix.Sendmsg(m.fd, []byte(strings.Join(lines, "\n")+"\n"), oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err != nil && m.lawful {
		w.t.Fatalf("worker %d cannot write: %v", m.tag, err)
	}
}

// next reads a line, if there is one, and the descriptor that it announces, or -1.
func (w *peerWorld) next(m *mate) (line string, fd int) {
	for {
		if i := bytes.IndexByte(m.in, '\n'); i >= 0 {
			line, fd = string(m.in[:i]), -1
			m.in = m.in[i+1:]
			if strings.HasPrefix(line, `{"cmd":"NODE_HANDLE",`) {
				if len(m.files) == 0 {
					w.t.Fatalf("worker %d reads %s without a descriptor", m.tag, line)
				}
				fd, m.files = m.files[0], m.files[1:]
			}
			return line, fd
		}
		var buf [4096]byte
		var oob [1200]byte
		n, oobn, _, _, err := unix.Recvmsg(m.fd, buf[:], oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return "", -1
		}
		m.in = append(m.in, buf[:n]...)
		m.files = append(m.files, descriptors(oob[:oobn])...)
	}
}

// hears lets a worker read a line and take note of it; false when there is none.
func (w *peerWorld) hears(m *mate) bool {
	line, fd := w.next(m)
	if line == "" {
		return false
	}
	o, is := isNewConn(line)
	switch {
	case is:
		g := &given{seq: o.seq, fd: fd}
		for _, p := range w.handles {
			if o.key == fmt.Sprint("h", p.id) {
				g.at = p
			}
		}
		if g.at == nil || slices.ContainsFunc(m.offers, func(g *given) bool { return g.seq >= o.seq }) {
			w.t.Fatalf("worker %d reads %s", m.tag, line)
		}
		g.c = w.identify(&m.player, fd)
		m.offers, m.unsaid = append(m.offers, g), append(m.unsaid, g)
	case fd >= 0:
		i := slices.IndexFunc(m.unsaid, func(g *given) bool { return g.line == line })
		if i >= 0 {
			w.t.Fatalf("worker %d reads %s twice", m.tag, line)
		}
		_ = unix.Close(fd)
		m.unsaid = append(m.unsaid, &given{line: line, fd: -1})
	case line == lineAck || line == lineNack:
	default:
		var n int
		if k, err := fmt.Sscanf(line, `"told %d"`, &n); k != 1 || err != nil || n <= m.plain {
			w.t.Fatalf("worker %d reads %s after %d", m.tag, line, m.plain)
		}
		m.plain = n
	}
	return true
}

// answer lets a worker say what becomes of a connection; it acknowledges before that, and
// so whatever came before that one.
func (w *peerWorld) answer(m *mate, g *given, accepted, acknowledged bool) {
	var lines []string
	if i := slices.Index(m.unsaid, g); acknowledged && i >= 0 {
		lines = slices.Repeat([]string{lineAck}, i+1)
		m.unsaid = m.unsaid[i+1:]
	}
	m.offers = slices.DeleteFunc(m.offers, func(o *given) bool { return o == g })
	w.say(m, nil, append(lines, offer{seq: g.seq}.answer(accepted))...)
	if !accepted {
		_ = unix.Close(g.fd)
		return
	}
	if g.c.owner != nil {
		w.t.Fatalf("worker %d accepts client %d, which is %d's", m.tag, g.c.n, g.c.owner.tag)
	}
	g.c.owner = &m.player
	var b [1]byte
	_, _ = unix.Read(g.fd, b[:])
	_, _ = unix.Write(g.fd, []byte{m.tag})
	m.owned = append(m.owned, &handed{c: g.c, fd: g.fd})
}

// shut closes what a worker has. What one that broke the protocol was offered is lost.
func (w *peerWorld) shut(m *mate) {
	if m.fd < 0 {
		return
	}
	if !m.lawful && !m.mute {
		for w.hears(m) {
		}
	}
	for _, g := range m.offers {
		_ = unix.Close(g.fd)
		if !m.lawful && !g.at.removed {
			w.lost = append(w.lost, g.c)
		}
	}
	for _, h := range m.owned {
		_ = unix.Close(h.fd)
	}
	for _, fd := range m.files {
		_ = unix.Close(fd)
	}
	_ = unix.Close(m.fd)
	m.fd, m.offers, m.owned, m.files, m.unsaid = -1, nil, nil, nil, nil
}

func (m *mate) String() string {
	return fmt.Sprintf("worker %d: admitted %v, lawful %v, mute %v, deaf %v, rest %v, ends %d, %d offers, %d to acknowledge, %d owned",
		m.tag, m.admitted, m.lawful, m.mute, m.deaf, m.rest, m.ends, len(m.offers), len(m.unsaid), len(m.owned))
}
