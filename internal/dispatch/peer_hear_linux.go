package dispatch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/nodeipc"
)

// peerBuffer is how much is read from a channel at once.
const peerBuffer = 64 << 10

// peerTold takes note of what epoll says of a channel.
func (d *Dispatcher) peerTold(p *peer, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		d.write(p)
		d.serve(p)
	}
	if events&^unix.EPOLLOUT != 0 && !p.paused && len(p.junk) <= maxJunk {
		d.hear(p, atOnce, events&(unix.EPOLLHUP|unix.EPOLLRDHUP|unix.EPOLLERR) == 0)
	}
}

// hear reads what a worker says, so many pieces at most. open means that the end of the
// channel would be told apart from what was read: a piece that does not fill the buffer
// is the last then.
func (d *Dispatcher) hear(p *peer, most int, open bool) {
	if d.wide == nil {
		d.wide = make([]byte, peerBuffer)
	}
	for range most {
		if p.ended {
			return
		}
		n, fds, errno := d.scratch.read(p.fd, d.wide)
		switch {
		case errno == unix.EAGAIN:
			d.serve(p)
			return
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			d.end(p, io.EOF)
			return
		}
		// epoll(7). What has descriptors ends a piece, whether there was room for them or not.
		last := open && n < len(d.wide) && len(fds) == 0 && d.scratch.msg.Flags&unix.MSG_CTRUNC == 0
		p.files = append(p.files, fds...)
		err := p.lines.Add(d.wide[:n], func(line []byte) error { return d.said(p, line) })
		if len(p.files) > 0 && !p.lines.Partial() {
			p.junk = append(p.junk, p.files...) // for which there was no line
			p.files = nil
			p.strikes++
		}
		if err == nil && (p.strikes > maxStrikes || len(p.files) > maxStrikes) {
			err = ErrPeerGarbage
		}
		if err != nil {
			d.end(p, err)
			return
		}
		d.closeJunk(p)
		if most == atOnce && (p.paused || len(p.junk) > maxJunk) {
			d.serve(p)
			return // until Resume, or it is cleared
		}
		if last {
			d.serve(p)
			return
		}
	}
	d.serve(p)
	if !p.ended {
		d.rewatchPeer(p) // there may be more, and epoll tells only of what comes
	}
}

// serve writes what waits, and hands over what waits for this worker: each time another
// of its handles goes first.
func (d *Dispatcher) serve(p *peer) {
	if p.ended {
		return
	}
	d.write(p)
	p.turn++
	for i := range p.members {
		if len(p.members) == 0 {
			return
		}
		if h := p.members[(p.turn+i)%len(p.members)].h; h.waits() {
			d.pump(h)
		}
	}
}

// How lines about descriptors begin, and one that comes with one.
var (
	handleHead = []byte(`{"cmd":"NODE_HANDLE`)
	handleLine = []byte(`{"cmd":"NODE_HANDLE",`)
)

// said takes a line of a worker.
func (d *Dispatcher) said(p *peer, line []byte) error {
	if p.ended {
		return errPeerDead
	}
	if p.Adopted {
		p.Adopted = false
		if !json.Valid(line) { // the rest of one that somebody else has begun to read
			return nil
		}
	}
	if !bytes.HasPrefix(line, handleHead) && !nodeipc.IsAnswer(line) {
		p.hear(line)
		return nil
	}
	if bytes.HasPrefix(line, handleLine) { // which may be long: not parsed on this thread
		d.brings(p, line)
		return nil
	}
	m, err := nodeipc.Parse(line)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeerGarbage, err)
	}
	switch m := m.(type) {
	case nodeipc.Answer:
		d.answered(p, m)
	case nodeipc.HandleAck:
		d.acknowledged(p)
	case nodeipc.HandleNack:
		return d.missed(p)
	case nodeipc.Handle:
		d.brings(p, line)
	default:
		p.hear(line)
	}
	return nil
}

// brings answers a line with a descriptor of the worker's, which nobody wants.
func (d *Dispatcher) brings(p *peer, line []byte) {
	answer := nodeipc.Nack
	if len(p.files) > 0 {
		p.junk = append(p.junk, p.files[0])
		p.files = p.files[1:]
		answer = nodeipc.Ack
	}
	p.answers = append(p.answers, answer)
	p.hear(line)
	d.write(p)
}

func (p *peer) hear(line []byte) {
	if !p.Hear(bytes.Clone(line), nil) {
		p.paused = true
	}
}

// answered takes the worker's word on a connection.
func (d *Dispatcher) answered(p *peer, a nodeipc.Answer) {
	for _, m := range p.members {
		i := slices.IndexFunc(m.out, func(c conn) bool { return c.seq == a.Ack })
		if i < 0 {
			continue
		}
		d.conclude(m, i, a.Accepted)
		if a.Accepted {
			m.rest = 0
		} else {
			d.refused(m)
		}
		d.afterAnswer(m)
		return
	}
	p.unasked()
}

// afterAnswer goes on with what an answer makes possible.
func (d *Dispatcher) afterAnswer(m *member) {
	if m.leaving {
		d.dismiss(m)
	}
	if len(m.h.waiting) > 0 {
		d.pump(m.h)
	}
}

// refused lets a member rest.
func (d *Dispatcher) refused(m *member) {
	m.rest = min(max(2*m.rest, restShortest), restLongest)
	m.full, m.until = true, d.now.Add(m.rest)
	d.later()
}

// unasked is an answer to nothing; or to what was taken away meanwhile.
func (p *peer) unasked() {
	if p.stale > 0 {
		p.stale--
	} else {
		p.strikes++
	}
}

// arrived returns what an acknowledgement is about; false when it is about nothing.
func (p *peer) arrived() (s sent, ok bool) {
	if p.old > 0 {
		p.old--
		p.note(0)
		return sent{letter: letter{fd: -1}}, true
	}
	if len(p.sent) == 0 {
		p.strikes++
		return s, false
	}
	s = p.sent[0]
	p.sent = p.sent[1:]
	p.note(0)
	return s, true
}

func (d *Dispatcher) acknowledged(p *peer) {
	if s, ok := p.arrived(); ok {
		closeFile(s.letter.fd)
	}
}

// missed: a descriptor has not come, which happens to a worker that has no room for it.
func (d *Dispatcher) missed(p *peer) error {
	s, ok := p.arrived()
	switch {
	case !ok:
	case s.letter.fd >= 0:
		s.letter.tries++
		if s.letter.tries == maxTries {
			closeFile(s.letter.fd)
			return ErrPeerFiles
		}
		p.out = append([]letter{s.letter}, p.out...)
	case s.m == nil:
		p.unasked() // no answer will come
	default:
		if i := slices.IndexFunc(s.m.out, func(c conn) bool { return c.seq == s.seq }); i >= 0 {
			d.conclude(s.m, i, false)
			d.refused(s.m)
			d.afterAnswer(s.m)
		}
	}
	return nil
}
