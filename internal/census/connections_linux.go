package census

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Tally is what the processes of one tree hold.
type Tally struct {
	// Open is how many connections that were accepted on each of the sockets are open
	// in the tree, in the order of the sockets; nil when that is unknown.
	Open []int
	// Err says why it is unknown: EACCES or EPERM when a process of the tree is
	// another user's, or has more privilege than we; EMFILE and the like.
	Err error
}

// Connections counts the accepted connections that the processes of each tree have
// a descriptor of, by the leader of the tree. A connection in several processes of
// a tree counts once; one in processes of two trees counts in both. Connections
// that are half closed count, those in TIME_WAIT and in the accept queue do not.
//
// Of several sockets with one address (SO_REUSEPORT) the kernel does not tell which
// one accepted a connection: it counts for the first that the tree itself has open,
// or else for the first. A socket of datagrams has no connections: 0.
//
// It does not block, but is nothing to do many times a second: it takes some
// microseconds for each descriptor that is open in the trees and for each of the
// connections, of which most is the kernel's readlinkat(2). When nothing is
// connected no process is looked at. For TCP the kernel walks through its table of
// all connections, once for IPv4 and once for IPv6 if there are sockets of it: some
// milliseconds on a machine with many of them, also in TIME_WAIT.
//
// Errors: ErrElsewhere; of sock_diag(7), ENOENT when the kernel lacks it for TCP
// (CONFIG_INET_DIAG) or Unix sockets (CONFIG_UNIX_DIAG).
func Connections(sockets []Socket, trees map[int][]int) (map[int]Tally, error) {
	l := newLedger(sockets)
	if err := l.list(); err != nil {
		return nil, err
	}
	tallies := make(map[int]Tally, len(trees))
	for leader, pids := range trees {
		tallies[leader] = l.tally(pids)
	}
	return tallies, nil
}

// ledger is one call of Connections.
type ledger struct {
	reader    reader
	sockets   []Socket
	addresses []address
	byName    map[name]int32   // into addresses
	byPort    map[port][]int32 // into addresses
	conns     map[uint64]int32 // by inode, into entries
	entries   []entry
	listeners map[uint64]int32 // by inode, into sockets
	round     int32            // which tree is looked at, from 1
	seen      []int32          // by socket: the last round that found it open
}

// name is what the connections of a socket have in common.
type name struct {
	family int
	local  netip.AddrPort // TCP
	device uint32         // TCP
	unix   unixName
}

type port struct {
	family int
	port   uint16
}

// address is one name and its sockets.
type address struct {
	name
	sockets []int32
	open    int // in the tree of this round
}

// entry is one connection.
type entry struct {
	address int32
	round   int32 // the last that found it
}

func newLedger(sockets []Socket) *ledger {
	return &ledger{sockets: sockets, byName: make(map[name]int32), byPort: make(map[port][]int32),
		conns: make(map[uint64]int32), listeners: make(map[uint64]int32), seen: make([]int32, len(sockets))}
}

// list asks the kernel for all connections.
func (l *ledger) list() error {
	d, err := openDiag()
	if err != nil {
		return err
	}
	defer d.close()
	ports, names := make(map[int][]uint16), make(map[unixName]int32)
	for i, s := range l.sockets {
		l.listeners[s.ino] = int32(i)
		if err := d.near(s.fd); err != nil {
			return fmt.Errorf("cannot count the connections of descriptor %d: %w", s.fd, err)
		}
		n := name{family: s.family, local: s.local, device: s.device}
		switch {
		case s.isUnix():
			found, err := d.unixSocket(s.ino)
			if err != nil {
				return fmt.Errorf("cannot look at the unix socket of descriptor %d: %w%s", s.fd, err, lacking(err, "CONFIG_UNIX_DIAG"))
			}
			n.unix = found.unixName
			names[n.unix] = l.add(n, i)
		case s.isTCP():
			ports[s.family] = append(ports[s.family], s.local.Port())
			l.add(n, i)
		}
	}
	for family, ports := range ports {
		err := d.inetConns(family, ports, func(c inetConn) {
			if at := l.closest(family, c); at >= 0 {
				l.note(at, c.ino)
			}
		})
		if err != nil {
			return fmt.Errorf("cannot list tcp connections: %w%s", err, lacking(err, "CONFIG_INET_DIAG"))
		}
	}
	if len(names) > 0 {
		if err := d.unixConns(names, l.note); err != nil {
			return fmt.Errorf("cannot list unix connections: %w%s", err, lacking(err, "CONFIG_UNIX_DIAG"))
		}
	}
	return nil
}

func lacking(err error, option string) string {
	if errors.Is(err, unix.ENOENT) {
		return " (the kernel has no " + option + ")"
	}
	return ""
}

// add puts socket i to its address.
func (l *ledger) add(n name, i int) int32 {
	at, known := l.byName[n]
	if !known {
		at = int32(len(l.addresses))
		l.addresses, l.byName[n] = append(l.addresses, address{name: n}), at
		p := port{n.family, n.local.Port()}
		l.byPort[p] = append(l.byPort[p], at)
	}
	l.addresses[at].sockets = append(l.addresses[at].sockets, int32(i))
	return at
}

// closest returns the address that the kernel led this connection to, or -1: an exact
// one before a wildcard. What came to a socket that is bound to an interface is bound
// to it too.
func (l *ledger) closest(family int, c inetConn) int32 {
	best, closest := int32(-1), 0
	for _, at := range l.byPort[port{family, c.local.Port()}] {
		a := &l.addresses[at]
		if a.device != 0 && a.device != c.device {
			continue
		}
		fit := 1
		switch ip := a.local.Addr(); {
		case ip == c.local.Addr():
			fit = 3
		case ip.Is4In6():
			if !ip.Unmap().IsUnspecified() || !c.local.Addr().Is4In6() {
				continue
			}
		case !ip.IsUnspecified():
			continue
		}
		if a.device != 0 {
			fit++
		}
		if fit > closest {
			best, closest = at, fit
		}
	}
	return best
}

// note enters a connection. What was not accepted has no inode; what moved in the
// kernel's table while we read it comes twice.
func (l *ledger) note(at int32, ino uint32) {
	if _, twice := l.conns[uint64(ino)]; ino == 0 || twice {
		return
	}
	l.conns[uint64(ino)] = int32(len(l.entries))
	l.entries = append(l.entries, entry{address: at})
}

// tally looks which of the connections the processes have open.
func (l *ledger) tally(pids []int) Tally {
	t := Tally{Open: make([]int, len(l.sockets))}
	if len(l.entries) == 0 {
		return t
	}
	l.round++
	for i := range l.addresses {
		l.addresses[i].open = 0
	}
	for _, pid := range pids {
		if _, err := l.reader.descriptors(pid, l.open); err != nil {
			return Tally{Err: fmt.Errorf("cannot read the descriptors of process %d: %w%s", pid, err, advice(err))}
		}
	}
	for _, a := range l.addresses {
		at := a.sockets[0]
		for _, i := range a.sockets {
			if l.seen[i] == l.round {
				at = i
				break
			}
		}
		t.Open[at] = a.open
	}
	return t
}

// open counts a descriptor.
func (l *ledger) open(_ int, target []byte) {
	ino := socketInode(target)
	if ino == 0 {
		return
	}
	if i, ok := l.conns[ino]; ok {
		if e := &l.entries[i]; e.round != l.round {
			e.round = l.round
			l.addresses[e.address].open++
		}
	} else if i, ok := l.listeners[ino]; ok {
		l.seen[i] = l.round
	}
}
