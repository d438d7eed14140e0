package dispatch

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// later lets everything be tried again soon.
func (d *Dispatcher) later() {
	if d.retry.IsZero() {
		d.retry = time.Now().Add(retryAfter)
	}
}

// pumpAll tries everything again.
func (d *Dispatcher) pumpAll() {
	for _, h := range d.handles {
		for _, m := range h.members {
			m.blocked = false
		}
		d.pump(h)
	}
}

// pump hands over as long as there are connections and somebody is free to take
// them. No connection is accepted before it is known who may have it, so what
// nobody takes waits in the kernel, where a crash of this process leaves it.
func (d *Dispatcher) pump(h *handle) {
	for len(h.waiting) > 0 || h.arrived() != nil {
		if !d.fill(h) {
			return
		}
		d.flush(h)
	}
}

// fill chooses members for connections until nobody is free or none is left, and
// reports whether it gave anybody something.
func (d *Dispatcher) fill(h *handle) bool {
	gave := false
	for i := 0; i < len(h.waiting); {
		m := h.choose(h.waiting[i])
		if m == nil { // there may be somebody for the next, which another passed on
			i++
			continue
		}
		m.batch = append(m.batch, h.waiting[i])
		h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
		gave = true
	}
	for s := h.arrived(); s != nil && h.anyFree(); s = h.arrived() {
		c, ok := d.accept(h, s)
		if !ok {
			if s.arrived {
				return gave // it failed for a lack of something
			}
			continue
		}
		m := h.choose(c)
		m.batch = append(m.batch, c)
		gave = true
	}
	return gave
}

// arrived returns a socket at which connections may wait.
func (h *handle) arrived() *source {
	for _, s := range h.sources {
		if s.arrived {
			return s
		}
	}
	return nil
}

func (h *handle) anyFree() bool {
	for _, m := range h.members {
		if m.free() {
			return true
		}
	}
	return false
}

// accept takes one connection out of the kernel's queue.
func (d *Dispatcher) accept(h *handle, s *source) (conn, bool) {
	for {
		fd, hash, errno := d.scratch.accept(s.fd, h.policy == SourceHash)
		switch errno {
		case 0:
			h.stats.Accepted.Add(1)
			return conn{fd: fd, hash: hash}, true
		case unix.EAGAIN:
			s.arrived = false
			return conn{}, false
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET,
			unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH: // of that connection, accept(2)
			if errno == unix.EOPNOTSUPP {
				s.arrived = false
				return conn{}, false
			}
			continue
		case unix.EINVAL: // somebody shut the socket down
			s.arrived = false
			d.complain(h, errno)
			return conn{}, false
		}
		d.later() // EMFILE, ENFILE, ENOBUFS, ENOMEM: the kernel keeps the connection
		d.complain(h, errno)
		return conn{}, false
	}
}

// complainEvery is the shortest time between two reports that accept(2) fails on
// a handle: it is tried again many times a second.
const complainEvery = 10 * time.Second

func (d *Dispatcher) complain(h *handle, errno unix.Errno) {
	if now := time.Now(); now.Sub(h.complained) >= complainEvery {
		h.complained = now
		d.o.Report(h.id, 0, fmt.Errorf("accept: %w", errno))
	}
}

// flush sends each member what was chosen for it.
func (d *Dispatcher) flush(h *handle) {
	for i := 0; i < len(h.members); i++ {
		m := h.members[i]
		if len(m.batch) == 0 {
			continue
		}
		switch errno := d.scratch.send(m); errno {
		case 0:
			m.out = append(m.out, m.batch...)
			m.batch = m.batch[:0]
		case unix.EAGAIN, unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
			m.blocked = true
			d.later()
			h.waiting = append(h.waiting, m.batch...)
			m.batch = m.batch[:0]
		default: // EPIPE, ECONNRESET: the worker's end is closed
			d.gone(m)
			i--
		}
	}
}

// scratch holds the buffers of the system calls, laid out once.
type scratch struct {
	in   [proto.HandoverSize + 1]byte
	addr unix.RawSockaddrAny
	data [proto.HandoverSize]byte
	iov  unix.Iovec
	msg  unix.Msghdr
	ctl  [16 + 4*proto.MaxHandover + 8]byte // CMSG_SPACE of that many descriptors
}

func (s *scratch) recv(fd int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&s.in[0])), uintptr(len(s.in)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func (s *scratch) accept(fd int, withAddress bool) (int, uint64, unix.Errno) {
	var addr, size unsafe.Pointer
	length := uint32(unsafe.Sizeof(s.addr))
	if withAddress {
		addr, size = unsafe.Pointer(&s.addr), unsafe.Pointer(&length)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(addr), uintptr(size), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, 0, errno
	}
	var hash uint64
	if withAddress {
		hash = hashAddress(s.client())
	}
	return int(n), hash, 0
}

// hashOf is the hash of a connection's client.
func (s *scratch) hashOf(fd int) uint64 {
	length := uint32(unsafe.Sizeof(s.addr))
	_, _, errno := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&s.addr)), uintptr(unsafe.Pointer(&length)))
	if errno != 0 {
		return 0
	}
	return hashAddress(s.client())
}

// client returns the bytes of the address of the connection accepted last: all of
// them for IPv4, the /64 for IPv6, of which one client has many; none for Unix.
func (s *scratch) client() []byte {
	switch s.addr.Addr.Family {
	case unix.AF_INET:
		return (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.addr)).Addr[:]
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.addr)).Addr[:]
		if [12]byte(a[:12]) == [12]byte{10: 0xff, 11: 0xff} { // IPv4-mapped
			return a[12:]
		}
		return a[:8]
	}
	return nil
}

// send sends the member's batch with one sendmsg(2).
func (s *scratch) send(m *member) unix.Errno {
	n := len(m.batch)
	proto.Handover{First: m.first, Count: uint16(n)}.Put(s.data[:])
	head := (*unix.Cmsghdr)(unsafe.Pointer(&s.ctl[0]))
	head.Level, head.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	head.SetLen(unix.CmsgLen(4 * n))
	fds := unsafe.Slice((*int32)(unsafe.Pointer(&s.ctl[unix.CmsgLen(0)])), n)
	for i, c := range m.batch {
		fds[i] = int32(c.fd)
	}
	s.iov.Base = &s.data[0]
	s.iov.SetLen(len(s.data))
	s.msg = unix.Msghdr{Iov: &s.iov, Iovlen: 1, Control: &s.ctl[0]}
	s.msg.SetControllen(unix.CmsgSpace(4 * n))
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(m.fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// closeRaw closes a descriptor whose close(2) does not block: a socket without
// SO_LINGER.
func closeRaw(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }
