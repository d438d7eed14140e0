package master

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/nodeipc"
	"github.com/f72e338e/supervisord/internal/proto"
)

// nodeLink is what the loop keeps of a Node worker instead of a link. The channel is
// the dispatcher's, which hands connections over on it; the rest of what the worker
// says comes here, and is translated into the messages of a link:
//
//	worker ──lines──▶ dispatcher ──Hear──▶ queue ──read──▶ loop: translate, core
//	worker ◀──lines── dispatcher ◀──────────Tell────────── loop: translate
type nodeLink struct {
	m     *Master
	id    proto.WorkerID
	lines *nodeipc.Worker // the loop's
	ended chan struct{}   // closed when everything was read

	policy  string // of the sockets that it asks for
	noted   nodePiece
	adopted bool // of an earlier master, and the core does not know yet what it holds

	mu    sync.Mutex
	queue [][]byte
	bytes int
	end   error         // the end of the channel, behind the queue
	some  chan struct{} // capacity 1: there is something, or the end
	rest  bool          // the dispatcher was told to read no more
}

const (
	// What of a worker may wait for the loop. Beyond that its channel is not read,
	// which only it notices.
	nodeQueue = 256
	nodeBytes = 256 << 10
	// nodeToken is how many bytes of a line cost as much as a message of a link: to read
	// 1 MiB of JSON takes the loop milliseconds, and some times that of memory.
	nodeToken = 1 << 10
	// nodeTold is how often it is told at most that a worker says more than is read.
	nodeTold = time.Minute
	// nodeNumbers are what each incarnation of the master has for the messages of one
	// worker: half of them for connections.
	nodeNumbers = 1 << 32
)

// newNodeLink gives the master's end of a channel to the dispatcher, and takes it.
func (m *Master) newNodeLink(id proto.WorkerID, near *fdpass.File, policy string) (*nodeLink, error) {
	page, err := fdpass.NewPage("node")
	if err != nil {
		_ = near.Close()
		return nil, err
	}
	epoch := int64(m.core.Master().Epoch)
	l := &nodeLink{m: m, id: id, policy: policy, lines: nodeipc.NewWorker(policy, epoch*nodeNumbers+nodeNumbers/2)}
	if err := l.begin(dispatch.Peer{Channel: near, Page: page, Seq: epoch * nodeNumbers}); err != nil {
		return nil, err
	}
	m.store.put(nodeName(id), l.lend)
	m.store.put(nodePageName(id), lendFile(page))
	return l, nil
}

// resumeNodeLink goes on with the channel of an earlier master, and what that knew.
func (m *Master) resumeNodeLink(id proto.WorkerID, near, page *fdpass.File, s nodePiece) (*nodeLink, error) {
	epoch := int64(m.core.Master().Epoch) + 1 // which begins with TookOver
	l := &nodeLink{m: m, id: id, policy: s.Policy, adopted: true, lines: nodeipc.Resume(s.Saved, s.Policy, epoch*nodeNumbers+nodeNumbers/2)}
	if err := l.begin(dispatch.Peer{Channel: near, Page: page, Seq: epoch * nodeNumbers, Adopted: true}); err != nil {
		return nil, err
	}
	m.store.resume(nodeName(id), l.lend)
	m.store.resume(nodePageName(id), lendFile(page))
	return l, nil
}

func (l *nodeLink) begin(p dispatch.Peer) error {
	l.ended, l.some = make(chan struct{}), make(chan struct{}, 1)
	if err := l.m.needDispatcher(); err != nil {
		_, _ = p.Channel.Close(), p.Page.Close()
		return err
	}
	p.Worker, p.Hear = uint64(l.id), l.hear
	return l.m.dispatcher.AddPeer(p)
}

func (l *nodeLink) lend(use func(fd int)) { l.m.dispatcher.LendPeer(uint64(l.id), use) }

// nodePiece is what the record has of a Node worker.
type nodePiece struct {
	nodeipc.Saved
	Policy string `json:"policy,omitempty"`
}

// noteNode notes what the translator knows, if that is something else than before: most
// of what a worker says changes nothing.
func (m *Master) noteNode(l *nodeLink) {
	now := nodePiece{l.lines.Save(), l.policy}
	if !reflect.DeepEqual(now, l.noted) {
		l.noted = now
		m.note(nodeKey(l.id), now)
	}
}

// hear is called on the dispatcher's thread.
func (l *nodeLink) hear(line []byte, end error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end != nil {
		l.end = end
	} else {
		l.queue = append(l.queue, line)
		l.bytes += len(line)
	}
	select {
	case l.some <- struct{}{}:
	default:
	}
	l.rest = len(l.queue) >= nodeQueue || l.bytes >= nodeBytes
	return !l.rest
}

// next waits for what the worker says. With nothing left it returns the end of the
// channel; io.ErrUnexpectedEOF when the master ends.
func (l *nodeLink) next() (lines [][]byte, resume bool, err error) {
	for {
		l.mu.Lock()
		lines, resume = l.queue, l.rest
		if len(lines) > 0 {
			l.queue, l.bytes, l.rest = nil, 0, false
			l.mu.Unlock()
			return lines, resume, nil
		}
		err = l.end
		l.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
		select {
		case <-l.some:
		case <-l.m.done:
			return nil, false, io.ErrUnexpectedEOF
		}
	}
}

// read passes on to the loop what the worker says, until the end of the channel.
func (l *nodeLink) read() {
	defer l.m.pumps.Done()
	defer close(l.ended)
	bucket := newBucket(linkBurst, linkRate)
	var told time.Time // that it says too much
	for {
		lines, resume, err := l.next()
		if err != nil {
			l.over(err)
			return
		}
		for _, line := range lines {
			var bad error
			if !l.m.call(func() { bad = l.take(line) }) {
				return
			}
			if bad != nil {
				l.m.post(core.LinkBroken{Worker: l.id, Cause: bad.Error()})
				return // and with a full queue the dispatcher reads no more
			}
			if bucket.spend(1+float64(len(line))/nodeToken, l.m.done) && time.Since(told) > nodeTold {
				told = time.Now()
				l.m.post(core.Said{Worker: l.id, What: core.WhatWorkerRefused, Text: "says more than is read of it: 2000 messages or 2 MB a second"})
			}
		}
		if resume {
			l.m.dispatcher.Resume(uint64(l.id))
		}
	}
}

// over tells the core of the end of the channel.
func (l *nodeLink) over(end error) {
	switch {
	case errors.Is(end, io.ErrUnexpectedEOF):
	case errors.Is(end, dispatch.ErrPeerDeaf), errors.Is(end, dispatch.ErrPeerGarbage), errors.Is(end, dispatch.ErrPeerFiles), errors.Is(end, nodeipc.ErrTooLong):
		l.m.post(core.LinkBroken{Worker: l.id, Cause: end.Error()})
	default:
		l.m.post(core.Said{Worker: l.id, What: core.WhatWorkerDisconnected})
		l.m.post(core.LinkClosed{Worker: l.id})
	}
}

// take gives one line to the core. The error means that the worker is not to be heard
// any more: it sends what Node never sends.
func (l *nodeLink) take(line []byte) error {
	h, err := l.lines.Hear(line)
	if err != nil {
		return fmt.Errorf("sends garbage over its channel: %w", err)
	}
	l.m.noteNode(l)
	if h.Answer != nil {
		l.m.tellNode(l.id, h.Answer, nil)
	}
	if what := noteOf[h.Note]; what != "" {
		l.m.step(core.Said{Worker: l.id, What: what, Text: h.Text})
	}
	if h.Note == nodeipc.NoteListening { // by listen(2) with a backlog of its own, where it accepts itself
		l.m.lookOf(l.id)
	}
	for _, e := range h.Messages {
		l.m.step(core.Received{Worker: l.id, Envelope: e})
	}
	return nil
}

var noteOf = map[string]string{
	nodeipc.NoteOnline: core.WhatWorkerOnline, nodeipc.NoteListening: core.WhatWorkerListening, nodeipc.NoteMessage: core.WhatWorkerMessage,
}

// tellNode says a line. A worker that has no channel any more has ended, or ends.
func (m *Master) tellNode(id proto.WorkerID, line []byte, file *fdpass.File) {
	if err := m.dispatcher.Tell(uint64(id), line, file); err != nil {
		m.log.Debug("message to a worker not sent", "worker", id, "err", err)
	}
}

// sendNode sends a message of the core to a Node worker, and lets the core have the
// query that waited for the answer, if it is one.
func (m *Master) sendNode(l *nodeLink, a core.Send) {
	defer func() {
		m.noteNode(l)
		if e, ok := l.lines.Next(); ok {
			m.later = append(m.later, core.Received{Worker: a.Worker, Envelope: e})
		}
	}()
	var data json.RawMessage
	entry := m.sockets[a.Handle]
	g, isGrant := a.Envelope.Body.(proto.Grant)
	if isGrant {
		if entry.tls == nil {
			if entry.tls = l.lines.Data(a.Envelope.Re); entry.tls != nil {
				m.noteSocket(a.Handle)
			}
		}
		data = entry.tls
		m.later = append(m.later, m.look(a.Handle)...)
		if proto.IsDispatched(g.Policy) {
			if err := m.dispatched(a.Handle, g.Policy); err != nil {
				m.ungranted(a.Worker, a.Handle, err)
				return
			}
		}
	}
	line, ok := l.lines.Say(a.Envelope, data)
	if w, is := a.Envelope.Body.(proto.Welcome); is && l.adopted {
		l.adopted = false
		for _, e := range l.lines.Rejoin(w.Epoch) {
			m.later = append(m.later, core.Received{Worker: a.Worker, Envelope: e})
		}
		return
	}
	if !ok || line.Text == nil {
		return
	}
	var file *fdpass.File
	if line.Socket {
		var err error
		if file, err = entry.file.Dup(); err != nil {
			m.ungranted(a.Worker, a.Handle, err)
			return
		}
	}
	m.tellNode(a.Worker, line.Text, file)
	if line.Key != "" {
		m.joinNode(a.Worker, a.Handle)
	}
}

// joinNode lets a Node worker be handed connections of a handle.
func (m *Master) joinNode(worker proto.WorkerID, handle proto.HandleID) {
	if !m.balances {
		m.balances = true
		m.pumps.Add(1)
		go m.balance()
	}
	w, _ := m.core.Worker(worker)
	err := m.dispatcher.JoinPeer(uint64(handle), dispatch.PeerMember{Worker: uint64(worker), Slot: w.Slot, Key: nodeipc.KeyOf(handle), Admitted: isServing(w)})
	if err != nil {
		m.log.Debug("worker not offered connections", "worker", worker, "handle", handle, "err", err)
	}
}

// nodePolicy is how connections reach a Node worker on sockets that it asks for, as
// Node's own primary would take it from the environment.
func nodePolicy(env []string) string {
	policy := proto.PolicyRoundRobin
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "NODE_CLUSTER_SCHED_POLICY="); ok {
			policy = proto.PolicyRoundRobin
			if v == "none" {
				policy = proto.PolicyShared
			}
		}
	}
	return policy
}

// nodePair makes a channel.
func nodePair() (near, far *fdpass.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return fdpass.NewFile(pair[0]), fdpass.NewFile(pair[1]), nil
}

// nodeEnv is what a Node worker finds its channel by, and in which form messages are.
// PM2 has made the last one known.
func nodeEnv(a core.Spawn) []string {
	return []string{"NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=json", "NODE_UNIQUE_ID=" + strconv.FormatUint(uint64(a.Worker), 10), "NODE_APP_INSTANCE=" + strconv.Itoa(a.Slot)}
}
