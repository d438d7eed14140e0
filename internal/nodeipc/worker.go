package nodeipc

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Worker translates between a worker's lines and the master's messages: Node's online
// is a hello, a query a listen, a disconnect a drain. The zero value is not ready for
// use, see NewWorker. Nothing of it may be called from two goroutines at a time.
type Worker struct {
	policy    string
	seq       int64
	listeners []string // of its pool, by number
	queries   []Query  // not answered; the first one is the master's, the others wait
	asked     bool     // the master has the first
	online    bool
	leaving   bool
	holds     []proto.HandleID // what it was granted, and has not closed
}

// NewWorker translates for a worker that has just been started. policy is the one of
// the sockets that it asks for, "" for the master's default; the numbers of what the
// master says follow seq.
func NewWorker(policy string, seq int64) *Worker {
	return &Worker{policy: policy, seq: seq}
}

// Kinds of Note.
const (
	NoteOnline    = "online"
	NoteListening = "listening"
	NoteMessage   = "message"
)

// Heard is what a line means.
type Heard struct {
	Messages []proto.Envelope // for the master
	Answer   []byte           // a line for the worker, said at once; nil for none
	Note     string           // what happened, one of the kinds; "" for nothing
	Text     string           // of the note: a place, or what the program said, as JSON, its first 64 KiB
}

const maxText = 64 << 10

// Hear translates a line of the worker, without its newline. Lines about connections
// that were handed over mean nothing here. Error: ErrBadLine.
func (w *Worker) Hear(line []byte) (h Heard, err error) {
	m, err := Parse(line)
	if err != nil {
		return h, err
	}
	switch m := m.(type) {
	case Online:
		h.Note, w.online = NoteOnline, true
		h.add(0, proto.Hello{Versions: []int{proto.Version}, Client: "node", Features: []string{proto.FeatureHandover}})
	case Query:
		w.query(m, &h)
	case Listening:
		h.Note, h.Text = NoteListening, m.String()
	case Closed:
		if id, err := strconv.ParseUint(strings.TrimPrefix(m.Key, "h"), 10, 64); err == nil {
			w.holds = slices.DeleteFunc(w.holds, func(h proto.HandleID) bool { return h == proto.HandleID(id) })
			h.add(0, proto.Close{Handle: proto.HandleID(id)})
		}
	case Leaving:
		w.leaving = true
		h.add(0, proto.Draining{Reason: "cluster.worker.disconnect()"})
		h.Answer = Acknowledged(w.next(), m.Seq)
	case User:
		h.Note, h.Text = NoteMessage, string(m.Value[:min(len(m.Value), maxText)])
		if h.Text == `"ready"` {
			h.add(0, proto.Ready{})
		}
	}
	return h, nil
}

func (h *Heard) add(id uint64, m proto.Message) {
	h.Messages = append(h.Messages, proto.Envelope{ID: id, Body: m})
}

func (w *Worker) next() int64 {
	w.seq++
	return w.seq
}

// maxAsked is how many queries of a worker may be open.
const maxAsked = 1024

// query takes a query, or refuses what has no place here. Queries are answered in their
// order, as by Node's own primary, whatever takes longest: so each waits for the answer
// to the one before (Next).
func (w *Worker) query(q Query, h *Heard) {
	_, errno := w.listen(q)
	if errno == 0 && len(w.queries) >= maxAsked {
		errno = syscall.EMFILE
	}
	if errno != 0 {
		h.Answer = Refused(w.next(), q.Seq, keyOfQuery(q.Seq), errno, q.Data)
		return
	}
	w.queries = append(w.queries, q)
	if e, ok := w.Next(); ok {
		h.Messages = append(h.Messages, e)
	}
}

// Next returns the message of the query that is to be answered next, once; false when
// there is none, or the one before has no answer yet. It is to be called after Say.
func (w *Worker) Next() (e proto.Envelope, ok bool) {
	if w.asked || len(w.queries) == 0 {
		return e, false
	}
	w.asked = true
	m, _ := w.listen(w.queries[0])
	return proto.Envelope{ID: idOfQuery(w.queries[0]), Body: m}, true
}

// idOfQuery is the number of its message, which is never 0.
func idOfQuery(q Query) uint64 { return uint64(q.Seq) + 1 }

// answered returns the query that a message answers, and takes it out.
func (w *Worker) answered(re uint64) (q Query, ok bool) {
	if !w.asked || re == 0 || re != idOfQuery(w.queries[0]) {
		return q, false
	}
	q = w.queries[0]
	w.queries, w.asked = w.queries[1:], false
	return q, true
}

func keyOfQuery(seq int64) string { return "q" + strconv.FormatInt(seq, 10) }

func (w *Worker) listen(q Query) (m proto.Listen, errno syscall.Errno) {
	m = proto.Listen{
		Network: q.Network, Address: q.Address, Port: q.Port, Backlog: q.Backlog, IPv6Only: q.IPv6Only,
		ReadableAll: q.ReadableAll, WritableAll: q.WritableAll, Policy: w.policy,
	}
	if q.FD >= 0 { // as with sd_listen_fds(3): 3 is the first listener of the pool
		if q.FD < firstFD || q.FD-firstFD >= len(w.listeners) {
			return m, syscall.EINVAL
		}
		return proto.Listen{Name: w.listeners[q.FD-firstFD], Backlog: q.Backlog}, 0
	}
	switch q.Network {
	case "unix":
		m.Address = cmp.Or(abstract(q.Address), q.Address)
	case "udp6": // which is of both families, unless the flag is set
		m.Network, m.Policy = "udp", ""
		if m.Address == "" {
			m.Address = "::"
		}
	case "udp4":
		m.Policy = ""
	}
	return m, 0
}

const firstFD = 3

// Line is what a message is for the worker.
type Line struct {
	Text   []byte
	Socket bool   // the handle's goes along
	Key    string // what the handle is called in newconn; "" for none
}

// Data is what a worker said with the query that a message answers, for all workers
// of the handle; nil for nothing. Only the first one's counts.
func (w *Worker) Data(re uint64) json.RawMessage {
	if !w.asked || re != idOfQuery(w.queries[0]) {
		return nil
	}
	return w.queries[0].Data
}

// Say translates a message of the master. data is the first worker's of the handle.
// false means that it is nothing to a Node worker.
func (w *Worker) Say(e proto.Envelope, data json.RawMessage) (l Line, ok bool) {
	q, asked := w.answered(e.Re)
	switch m := e.Body.(type) {
	case proto.Welcome:
		w.listeners = w.listeners[:0]
		for _, l := range m.Listeners {
			w.listeners = append(w.listeners, l.Name)
		}
	case proto.Grant:
		if !asked {
			return l, false
		}
		key := KeyOf(m.Handle)
		if !slices.Contains(w.holds, m.Handle) {
			w.holds = append(w.holds, m.Handle)
		}
		if proto.IsDispatched(m.Policy) {
			return Line{Text: Granted(w.next(), q.Seq, key, m.Address, data), Key: key}, true
		}
		return Line{Text: Shared(w.next(), q.Seq, key, data, proto.IsDatagram(m.Network)), Socket: true}, true
	case proto.Error:
		// Who asks while it is to go is not answered, as by Node's own primary: few
		// programs expect that listen fails then, and one that ends at it would cut off
		// what it has open.
		if !asked || m.Code == proto.CodeState && w.online {
			return l, false
		}
		return Line{Text: Refused(w.next(), q.Seq, keyOfQuery(q.Seq), refusal(q, m), q.Data)}, true
	case proto.Drain:
		return Line{Text: Disconnect(w.next())}, true
	}
	return l, false
}

// KeyOf is what a handle is called towards Node workers.
func KeyOf(id proto.HandleID) string { return "h" + strconv.FormatUint(uint64(id), 10) }

// refusal is the errno of an error, as Node's library has it.
func refusal(q Query, m proto.Error) syscall.Errno {
	errno := syscall.Errno(m.Errno)
	if q.Network == "unix" && errno == syscall.ENOENT {
		return syscall.EACCES // uv_pipe_bind
	}
	if errno == 0 {
		return syscall.EINVAL
	}
	return errno
}

// abstract returns the abstract name that a path means, with its @, or "". Of "\0name"
// the worker makes a path in its directory.
func abstract(path string) string {
	if _, name, ok := strings.Cut(path, "\x00"); ok {
		return "@" + name
	}
	return ""
}

// String is the place as the master writes it: "tcp 127.0.0.1:80", "tcp :80" where no
// host was named, "udp4 0.0.0.0:53", "unix /run/x", "unix @name"; of a descriptor
// "fd 3 (port 80)", or "fd 3" where it has no port.
func (p Place) String() string {
	switch {
	case p.FD >= 0 && p.Port != 0:
		return fmt.Sprintf("fd %d (port %d)", p.FD, p.Port)
	case p.FD >= 0:
		return fmt.Sprintf("fd %d", p.FD)
	case p.Network == "unix":
		return "unix " + cmp.Or(abstract(p.Address), p.Address)
	}
	if a, err := netip.ParseAddr(p.Address); err == nil {
		return p.Network + " " + netip.AddrPortFrom(a, uint16(p.Port)).String()
	}
	return fmt.Sprintf("%s %s:%d", p.Network, p.Address, p.Port)
}
