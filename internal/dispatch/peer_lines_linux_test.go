package dispatch

import (
	"bytes"
	"encoding/json"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// offer is a connection that came with a newconn.
type offer struct {
	key string
	seq int64
	fd  int
}

const (
	lineAck    = `{"cmd":"NODE_HANDLE_ACK"}`
	lineNack   = `{"cmd":"NODE_HANDLE_NACK"}`
	lineHandle = `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"x"}` // of the worker
	lineShared = `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{}}`  // of the master
)

// next reads a line, and the descriptor that it announces, or -1. false: the channel
// has ended.
func (n *node) next() (line string, fd int, ok bool) {
	var buf [64 << 10]byte
	var oob [1200]byte
	for {
		if i := bytes.IndexByte(n.in, '\n'); i >= 0 {
			line, fd = string(n.in[:i]), -1
			n.in = n.in[i+1:]
			if bytes.HasPrefix([]byte(line), []byte(`{"cmd":"NODE_HANDLE",`)) && len(n.files) > 0 {
				fd, n.files = n.files[0], n.files[1:]
			}
			return line, fd, true
		}
		size, oobn, _, _, err := unix.Recvmsg(n.fd, buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || size == 0 {
			return "", -1, false
		}
		n.in = append(n.in, buf[:size]...)
		n.files = append(n.files, descriptors(oob[:oobn])...)
	}
}

// reads wants this line next, without a descriptor.
func (n *node) reads(want string) {
	n.r.t.Helper()
	line, fd, ok := n.next()
	if !ok || line != want || fd >= 0 {
		n.r.t.Fatalf("worker %d reads %q with descriptor %d (%v), want %q", n.id, line, fd, ok, want)
	}
}

// newconn wants a connection next.
func (n *node) newconn() offer {
	n.r.t.Helper()
	line, fd, ok := n.next()
	o, is := isNewConn(line)
	if !ok || !is || fd < 0 {
		n.r.t.Fatalf("worker %d reads %q with descriptor %d (%v), want a connection", n.id, line, fd, ok)
	}
	o.fd = fd
	n.own = append(n.own, fd)
	return o
}

// drop closes what a worker has of a connection.
func (n *node) drop(o offer) {
	_ = unix.Close(o.fd)
	n.own = slices.DeleteFunc(n.own, func(fd int) bool { return fd == o.fd })
}

// isNewConn reads the line of a connection.
func isNewConn(line string) (offer, bool) {
	var m struct {
		Cmd, Type string
		Msg       struct {
			Cmd, Act, Key string
			Seq           int64
		}
	}
	err := json.Unmarshal([]byte(line), &m)
	ok := err == nil && m.Cmd == "NODE_HANDLE" && m.Type == "net.Native" && m.Msg.Cmd == "NODE_CLUSTER" && m.Msg.Act == "newconn"
	return offer{key: m.Msg.Key, seq: m.Msg.Seq, fd: -1}, ok
}

// say writes lines with one write(2).
func (n *node) say(lines ...string) {
	n.r.t.Helper()
	if err := n.send(lines, nil); err != nil {
		n.r.t.Errorf("worker %d cannot write: %v", n.id, err)
	}
}

func (n *node) send(lines []string, oob []byte) error {
	var b []byte
	for _, l := range lines {
		b = append(append(b, l...), '\n')
	}
	return unix.Sendmsg(n.fd, b, oob, nil, unix.MSG_NOSIGNAL)
}

// sayWith writes a line with descriptors, which it borrows.
func (n *node) sayWith(line string, fds ...int) {
	n.r.t.Helper()
	if err := n.send([]string{line}, unix.UnixRights(fds...)); err != nil {
		n.r.t.Errorf("worker %d cannot write: %v", n.id, err)
	}
}

func (o offer) answer(accepted bool) string {
	b, _ := json.Marshal(accepted)
	s, _ := json.Marshal(o.seq)
	return `{"cmd":"NODE_CLUSTER","ack":` + string(s) + `,"accepted":` + string(b) + `,"seq":3}`
}

// serves accepts a connection, and answers it with its id.
func (n *node) serves(o offer) {
	n.r.t.Helper()
	n.say(lineAck, o.answer(true))
	_, _ = unix.Write(o.fd, []byte{byte(n.id)})
	n.drop(o)
}

// refuses says so.
func (n *node) refuses(o offer) {
	n.r.t.Helper()
	n.drop(o)
	n.say(lineAck, o.answer(false))
}

// tell says a line, and sends a copy of a descriptor along unless it is -1.
func (n *node) tell(line string, fd int) {
	n.r.t.Helper()
	var file *fdpass.File
	if fd >= 0 {
		var err error
		borrowed := fdpass.NewFile(fd)
		if file, err = borrowed.Dup(); err != nil {
			n.r.t.Fatal(err)
		}
		borrowed.Release()
	}
	if err := n.r.d.Tell(n.id, []byte(line+"\n"), file); err != nil {
		n.r.t.Fatal(err)
	}
}

// withFile wants this line next, with a descriptor from which this is read.
func (n *node) withFile(want, content string) {
	n.r.t.Helper()
	line, fd, ok := n.next()
	if !ok || line != want || fd < 0 {
		n.r.t.Fatalf("worker %d reads %q with descriptor %d (%v), want %q with one", n.id, line, fd, ok, want)
	}
	b := make([]byte, 64)
	if size, _, _ := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); string(b[:max(0, size)]) != content {
		n.r.t.Errorf("worker %d reads %q from the descriptor, want %q", n.id, b[:max(0, size)], content)
	}
	_ = unix.Close(fd)
}
