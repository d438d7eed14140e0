package steer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// MaxMembers is how many members a group can have: 0 to MaxMembers-1.
const MaxMembers = 256

// Mode says how connections reach members.
type Mode uint8

// The modes.
const (
	Hash    Mode = iota // by a hash of the client's address and port
	Steered             // to the ready member with the fewest connections
)

func (m Mode) String() string {
	if m == Steered {
		return "steered"
	}
	return "hash"
}

// Why a group is in Hash mode, beside what the kernel refused.
var (
	ErrDatagram = errors.New("datagrams of one client must stay with one worker")
	ErrNoBPF    = errors.New("eBPF is switched off")
)

// ErrBusy is returned by Add when the socket still belongs to the program of a
// predecessor: a master that was replaced or killed. That program was taken off, and
// the kernel lets go of the socket some milliseconds later: call Add again then.
// Until it is added, connections go by the kernel's hash.
var ErrBusy = errors.New("the socket still belongs to the steering of a predecessor")

// ErrNoMember means a number out of range, or one that was not added.
var ErrNoMember = errors.New("no such member")

// Options of a Group. The zero value is a group of stream sockets.
type Options struct {
	Datagram bool // the sockets are UDP
	NoBPF    bool // do not try eBPF
}

// Group steers one address. It has no goroutine and is not safe for concurrent
// use: the caller's loop owns it. No method waits for a worker; NewPage and Serve
// may wait some milliseconds for the kernel, and say when.
type Group struct {
	o       Options
	k       *kernel // nil in Hash mode
	why     error
	members [MaxMembers]*member
	order   []int // members as the kernel has them in the group, for the filter
	only    int
}

// member is one socket.
type member struct {
	socket  *fdpass.File // borrowed
	late    bool         // not in a group yet: see Add
	ready   bool
	page    *page // nil: what its worker does is unknown
	missing int64 // picks that nobody has, at the last Settle
}

// New makes a group without members. It never fails: where the kernel does not
// allow eBPF the mode is Hash, and Why says why. In Steered mode it owns up to 14
// descriptors until Close, however many members there are.
func New(o Options) *Group {
	g := &Group{o: o, only: -1}
	switch {
	case o.Datagram:
		g.why = ErrDatagram
	case o.NoBPF:
		g.why = ErrNoBPF
	default:
		g.k, g.why = newKernel()
	}
	return g
}

// Mode returns the mode. It can change in Add, from Steered to Hash.
func (g *Group) Mode() Mode {
	if g.k != nil {
		return Steered
	}
	return Hash
}

// Why returns why the mode is Hash, nil when it is Steered. The errno is in it.
func (g *Group) Why() error { return g.why }

// Add makes a member of a socket, which it borrows: it must stay open until Close.
// The socket has SO_REUSEPORT and is bound, a stream socket listens. Members are
// added in the order in which their sockets joined the group in the kernel: UDP at
// bind(2), TCP at listen(2). A new member is not ready.
//
// A socket that got SO_REUSEPORT late, when it listened already, has no group until
// another joins it. It is accepted, and becomes steerable when the next is added.
//
// Add of a member that there is says that its socket left the group and joined
// again at the end: listen(2) after shutdown(2), or another socket. What is known
// of its worker stays.
//
// Errors: ErrNoMember, fdpass.ErrClosed, [ErrBusy], EINVAL for a socket of the wrong
// type or without SO_REUSEPORT: then the member is not there, or as it was. In Hash
// mode also what setsockopt(2) returns, as of Serve, Rest and Only: then the member
// is there, and what is attached may be out of date.
func (g *Group) Add(id int, socket *fdpass.File) error {
	if id < 0 || id >= MaxMembers {
		return fmt.Errorf("member %d: %w", id, ErrNoMember)
	}
	fd := socket.Fd()
	if fd < 0 {
		return fdpass.ErrClosed
	}
	if err := g.fits(fd); err != nil {
		return fmt.Errorf("member %d: %w", id, err)
	}
	late := false
	if g.k != nil {
		err := g.k.add(id, fd)
		switch {
		case errors.Is(err, errNoGroup):
			late = true
		case errors.Is(err, ErrBusy):
			return fmt.Errorf("member %d: %w", id, ErrBusy)
		case err != nil:
			g.fall(err)
		}
	}
	g.join(id)
	if m := g.members[id]; m != nil {
		m.socket, m.late = socket, late
	} else {
		g.members[id] = &member{socket: socket, late: late}
	}
	if !late {
		g.addLate()
	}
	return g.apply()
}

// fits says whether a socket can be in the group.
func (g *Group) fits(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if (kind == unix.SOCK_DGRAM) != g.o.Datagram {
		return fmt.Errorf("a group is of stream or of datagram sockets: %w", unix.EINVAL)
	}
	on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err == nil && on == 0 {
		err = fmt.Errorf("the socket has no SO_REUSEPORT: %w", unix.EINVAL)
	}
	return err
}

// join keeps order as the kernel keeps the sockets of a group: one that leaves is
// replaced by the last, one that comes is put at the end (reuseport_detach_sock).
func (g *Group) join(id int) {
	for i, other := range g.order {
		if other == id {
			last := len(g.order) - 1
			g.order[i] = g.order[last]
			g.order = g.order[:last]
			break
		}
	}
	g.order = append(g.order, id)
}

// addLate adds to the kernel's side what had no group when it came.
func (g *Group) addLate() {
	for id, m := range g.members {
		if m == nil || !m.late || g.k == nil {
			continue
		}
		if err := g.k.add(id, m.socket.Fd()); err == nil {
			m.late = false
		}
	}
}

// fall changes from Steered to Hash. Workers keep their pages, which the group has
// mapped.
func (g *Group) fall(why error) {
	g.k.close()
	g.k, g.why = nil, why
}

// Close ends the steering: it takes the program or filter off the sockets that are
// open still and frees what the kernel keeps for the group. It closes no socket.
// The group must not be used any more.
//
// A master that is replaced does not call it: without it the program goes on
// steering, by what it knows of who is ready, until the successor adds the sockets.
func (g *Group) Close() error {
	err := g.detach()
	for id, m := range g.members {
		if m != nil {
			m.page.close()
			g.members[id] = nil
		}
	}
	g.order = nil
	if g.k != nil {
		err = errors.Join(err, g.k.close())
		g.k, g.why = nil, fdpass.ErrClosed
	}
	return err
}

// at returns a member that was added.
func (g *Group) at(id int) (*member, error) {
	if id < 0 || id >= MaxMembers || g.members[id] == nil {
		return nil, fmt.Errorf("member %d: %w", id, ErrNoMember)
	}
	return g.members[id], nil
}
