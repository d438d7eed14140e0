package dispatch

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/nodeipc"
)

// A peer is a worker that speaks the language of Node's cluster: one stream of lines
// for all of its handles, on which the master says other things, too. A connection
// goes along with a line, and is answered by two:
//
//	dispatcher                                      worker
//	  newconn key seq + connection ───────────────▶
//	  ◀──────────────────────────── NODE_HANDLE_ACK   it has the descriptor
//	  ◀──────────────────────────── ack seq, accepted   and takes the connection, or not
//
// The answer is written before the program sees the connection; until it has come a copy
// is kept here. So when the worker has ended, and its channel, read to the end, holds no
// answer, the connection goes to another.
//
// Node's own primary says nothing after a line with a descriptor until its
// acknowledgement: were a line cut in two, descriptors of several would be mixed up. A
// line that is written with one sendmsg(2) or not at all cannot be cut, so a worker has
// several before it when there is much to do. Each wakes it once less.

// Peer is the channel of one worker.
type Peer struct {
	Worker  uint64
	Channel *fdpass.File // stream socket, O_NONBLOCK
	Seq     int64        // the numbers of what is handed over follow this one
	// Page is where the dispatcher notes for the next one how many descriptors it has
	// sent that were not acknowledged, or nil. One with such a number means that an
	// earlier dispatcher had the channel.
	Page *fdpass.File
	// Adopted says that an earlier dispatcher had the channel, and may have read half a
	// line.
	Adopted bool
	// Hear is told each line that is not about a connection, and nil and the cause at
	// the end of the channel: io.EOF, or what is wrong with it, and then no more is read.
	// The line is Hear's. It returns false for "no more for now", until Resume. It
	// is called on the dispatcher's thread and must not block.
	Hear func(line []byte, end error) bool
}

// peer is what the dispatcher knows of a Peer.
type peer struct {
	Peer
	fd      int
	at      int32
	lines   nodeipc.Lines
	members []*member
	turn    int      // which of them is served first next time
	files   []int    // came with bytes whose line has not ended
	junk    []int    // to be closed, which may take its time
	closing bool     // some of it is being closed
	answers [][]byte // lines that may always be said
	out     []letter // lines that wait, in order
	sent    []sent   // with a descriptor, and not acknowledged, in order
	page    []byte   // see Peer.Page
	old     int      // acknowledgements to come of what an earlier dispatcher sent
	stale   int      // answers to come on what nobody knows any more
	strikes int      // how often it said what made no sense
	paused  bool     // Hear wants no more
	armed   bool     // epoll tells when it can be written to
	ended   bool     // its end was told
}

// letter is a line of the master, and a descriptor that goes along, or -1.
type letter struct {
	line  []byte
	fd    int
	tries int
}

// sent is a line with a descriptor: a letter, or a connection for a member.
type sent struct {
	letter letter
	m      *member // nil for a letter, and for one that has left
	seq    int64
}

const (
	// depth is how many connections of a handle a worker may have to answer for, when
	// nobody is without.
	depth = 8
	// A worker that leaves one unanswered for so long gets no second, nor does one that
	// has answered none for lively: it may be stopped, and whoever is served by it waits.
	prompt = 5 * time.Millisecond
	lively = 100 * time.Millisecond
	// maxLetters may wait for a worker, and so many descriptors for its acknowledgement.
	// One that reads them never lets it come so far.
	maxLetters = 256
	// maxLetter is how long a line may be: one of that length is written whole or not
	// at all.
	maxLetter = 32 << 10
	// maxStrikes is how many lines of a worker may make no sense, or descriptors come
	// for which nobody asked.
	maxStrikes = 16
	// maxJunk is how many descriptors may wait to be closed on behalf of a worker that is
	// still heard, or offered connections.
	maxJunk = 16
	// maxTries is how often a descriptor is sent that does not arrive.
	maxTries = 4
	// A member that refuses a connection is asked again after this time; it doubles up
	// to the second. What it says does not tell whether it will have room.
	restShortest = 4 * time.Millisecond
	restLongest  = 16 * time.Millisecond
)

// The ends of a channel that are not io.EOF.
var (
	ErrPeerDeaf    = errors.New("does not read its channel")
	ErrPeerGarbage = errors.New("says what makes no sense")
	ErrPeerFiles   = errors.New("does not receive descriptors")
)

// AddPeer takes a worker's channel. Errors: that of epoll_ctl(2); the channel is closed
// then.
func (d *Dispatcher) AddPeer(o Peer) (err error) {
	p := &peer{Peer: o, fd: o.Channel.Release()}
	ran := d.do(func() {
		if err = p.adopt(); err != nil {
			return
		}
		p.at = d.place(entry{p: p})
		if err = d.watch(p.fd, p.at, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
			d.vacate(p.at)
			return
		}
		d.peers[p.Worker] = p
	})
	if !ran {
		err = errEnded
	}
	if err != nil {
		_ = unix.Close(p.fd)
		_ = o.Page.Close()
		p.unmap()
	}
	return err
}

// Tell says a line, which ends with a newline, and sends a file along, which it takes;
// nil for none. A worker that does not read loses its channel (Hear). Errors: no such
// worker, a line that is too long; the file is closed then.
func (d *Dispatcher) Tell(worker uint64, line []byte, file *fdpass.File) (err error) {
	fd := file.Release()
	ran := d.do(func() {
		p := d.peers[worker]
		switch {
		case p == nil || p.ended:
			err = fmt.Errorf("worker %d has no channel", worker)
			return
		case len(line) > maxLetter:
			err = fmt.Errorf("a line of %d bytes (at most %d)", len(line), maxLetter)
			return
		}
		p.out = append(p.out, letter{line: line, fd: fd})
		fd = -1
		d.write(p)
	})
	if !ran {
		err = errEnded
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return err
}

// Resume lets a worker be heard again after Hear returned false.
func (d *Dispatcher) Resume(worker uint64) {
	d.do(func() {
		if p := d.peers[worker]; p != nil && p.paused {
			p.paused = false
			d.hear(p, atOnce, false)
		}
	})
}

// PeerMember is one worker's part in one handle, of a worker with a Peer.
type PeerMember struct {
	Worker   uint64
	Slot     int    // what source_hash goes by
	Key      string // what the handle is called towards the worker; without what JSON escapes
	Admitted bool   // it is offered connections at once, not only after Admit
}

// JoinPeer lets a worker take part in a handle. Connections follow everything that it
// was told before. Errors: no such handle, no such worker.
func (d *Dispatcher) JoinPeer(id uint64, j PeerMember) (err error) {
	ran := d.do(func() {
		h, p := d.handles[id], d.peers[j.Worker]
		if h == nil || p == nil || p.ended {
			err = fmt.Errorf("handle %d is not dispatched, or worker %d has no channel", id, j.Worker)
			return
		}
		m := &member{h: h, worker: j.Worker, slot: j.Slot, fd: -1, far: -1, admitted: j.Admitted, most: 1, given: h.given,
			peer: p, key: j.Key, batch: make([]conn, 0, 1), out: make([]conn, 0, depth)}
		h.members = append(h.members, m)
		p.members = append(p.members, m)
		h.peers++
		d.pump(h)
	})
	if !ran {
		err = errEnded
	}
	return err
}

// RemovePeer ends a worker's channel: the worker is dead. What it said is heard to the
// end; what it did not take goes to others.
func (d *Dispatcher) RemovePeer(worker uint64) {
	d.do(func() {
		if p := d.peers[worker]; p != nil {
			// Whoever has inherited its end may write for ever: no more after this. What is
			// there is bounded, and then comes the end.
			_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(p.fd), unix.SHUT_RD, 0)
			d.hear(p, 1<<30, false)
			d.removePeer(p)
		}
	})
}

func (d *Dispatcher) removePeer(p *peer) {
	d.end(p, errPeerDead)
	delete(d.peers, p.Worker)
	d.vacate(p.at)
	_ = unix.EpollCtl(d.ep, unix.EPOLL_CTL_DEL, p.fd, nil)
	d.discard(p.fd)
	p.unmap()
	_ = p.Page.Close()
}

var errPeerDead = errors.New("the worker has ended")

// mayOffer reports whether the member may be handed a connection now.
func (m *member) mayOffer() bool {
	p := m.peer
	if p.ended || len(p.out) > 0 || len(p.answers) > 0 || len(p.sent) >= maxLetters || len(p.junk) > maxJunk {
		return false
	}
	now := m.h.d.now
	return len(m.out) == 0 || m.h.deep && len(m.out) < depth && now.Sub(m.since) < prompt && now.Sub(m.answered) < lively
}

// offerTo hands a member the connection that was chosen for it.
func (d *Dispatcher) offerTo(m *member) unix.Errno {
	p := m.peer
	p.Seq++
	d.line = nodeipc.AppendNewConn(d.line[:0], p.Seq, m.key)
	p.note(1)
	switch errno := d.scratch.say(p.fd, d.line, m.batch[0].fd); errno {
	case 0:
	case unix.EMSGSIZE: // a line that short is never cut
		d.end(p, ErrPeerDeaf)
		return unix.EPIPE
	default:
		p.note(0)
		return errno
	}
	c := m.batch[0]
	c.seq = p.Seq
	if len(m.out) == 0 {
		m.since = d.now
	}
	m.out = append(m.out, c)
	m.batch = m.batch[:0]
	m.give(1)
	m.unread = true
	p.sent = append(p.sent, sent{m: m, seq: c.seq, letter: letter{fd: -1}})
	return 0
}

// write says what waits, as far as that is allowed and the channel has room.
func (d *Dispatcher) write(p *peer) {
	for !p.ended {
		l := letter{fd: -1}
		switch {
		case len(p.answers) > 0:
			l.line = p.answers[0]
		case len(p.out) > 0:
			l = p.out[0]
		default:
			d.want(p, false)
			return
		}
		errno := unix.EBUSY // until it acknowledges
		if l.fd < 0 || len(p.sent) < maxLetters {
			if l.fd >= 0 {
				p.note(1)
			}
			errno = d.scratch.say(p.fd, l.line, l.fd)
		}
		room := len(p.out)+len(p.answers) <= maxLetters
		switch {
		case errno == 0:
		case room && errno == unix.EAGAIN:
			d.want(p, true)
			return
		case room && (errno == unix.ETOOMANYREFS || errno == unix.ENOBUFS || errno == unix.ENOMEM):
			d.later()
			return
		case room && (errno == unix.EBUSY || errno == unix.EPIPE || errno == unix.ECONNRESET): // its end may follow, behind what it said
			return
		default:
			d.end(p, ErrPeerDeaf)
			return
		}
		if len(p.answers) > 0 {
			p.answers = p.answers[1:]
			continue
		}
		p.out = p.out[1:]
		if l.fd >= 0 {
			p.sent = append(p.sent, sent{letter: l})
		}
	}
}

// want lets epoll tell when the channel has room.
func (d *Dispatcher) want(p *peer, room bool) {
	if p.armed != room {
		p.armed = room
		d.rewatchPeer(p)
	}
}

// rewatchPeer tells epoll anew what to tell of a channel. What is so already is told
// too.
func (d *Dispatcher) rewatchPeer(p *peer) {
	events := uint32(unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET)
	if p.armed {
		events |= unix.EPOLLOUT
	}
	_ = d.control(unix.EPOLL_CTL_MOD, p.fd, p.at, events)
}

// end tells the end of a channel once, and takes back what the worker has not taken.
func (d *Dispatcher) end(p *peer, cause error) {
	if p.ended {
		return
	}
	p.ended = true
	for _, l := range p.out {
		closeFile(l.fd)
	}
	for _, s := range p.sent {
		closeFile(s.letter.fd)
	}
	p.out, p.answers, p.sent = nil, nil, nil
	// Who lives on may find in its channel what it was offered.
	taken := cause != io.EOF && cause != errPeerDead
	for _, m := range slices.Clone(p.members) {
		for len(m.out) > 0 {
			d.conclude(m, len(m.out)-1, taken)
		}
		d.dismiss(m)
		d.pump(m.h)
	}
	d.discard(append(p.files, p.junk...)...)
	p.files, p.junk = nil, nil
	p.Hear(nil, cause)
}

func closeFile(fd int) {
	if fd >= 0 {
		closeRaw(fd)
	}
}

// conclude ends an offer of a member: the connection is the worker's, or waits for
// another, before what came later.
func (d *Dispatcher) conclude(m *member, i int, accepted bool) {
	c := m.out[i]
	m.out = slices.Delete(m.out, i, i+1)
	m.unread, m.since, m.answered = len(m.out) > 0, d.now, d.now
	if accepted {
		m.peer.closeTaken(c.fd)
		m.h.stats.Handed.Add(1)
		return
	}
	c.not, c.soft = m.worker, true
	m.h.waiting = append([]conn{c}, m.h.waiting...)
	m.h.stats.Returned.Add(1)
	m.give(-1)
	m.given--
}
