package dispatch

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// scratch holds the buffers of the system calls, laid out once.
type scratch struct {
	in   [proto.HandoverSize + 1]byte
	left int32
	addr unix.RawSockaddrAny
	data [proto.HandoverSize]byte
	iov  unix.Iovec
	msg  unix.Msghdr
	ctl  [controlSize]byte
}

// controlSize has room for 253 descriptors (SCM_MAX_FD), and for what a worker may
// have asked for beside.
const controlSize = 1200

// recv receives a packet, and files that came with it.
func (s *scratch) recv(fd int) (int, []int, unix.Errno) {
	s.iov.Base = &s.in[0]
	s.iov.SetLen(len(s.in))
	s.msg = unix.Msghdr{Iov: &s.iov, Iovlen: 1, Control: &s.ctl[0]}
	s.msg.SetControllen(len(s.ctl))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errno != 0 {
		return 0, nil, errno
	}
	return int(n), descriptors(s.ctl[:min(int(s.msg.Controllen), len(s.ctl))]), 0
}

// descriptors returns those of a control message (unix(7)). A worker may have asked
// for more to come with each (SO_PASSCRED).
func descriptors(ctl []byte) (fds []int) {
	for len(ctl) >= unix.CmsgLen(0) {
		head := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		size := int(head.Len)
		if size < unix.CmsgLen(0) || size > len(ctl) {
			break
		}
		if head.Level == unix.SOL_SOCKET && head.Type == unix.SCM_RIGHTS {
			for _, fd := range unsafe.Slice((*int32)(unsafe.Pointer(&ctl[unix.CmsgLen(0)])), (size-unix.CmsgLen(0))/4) {
				fds = append(fds, int(fd))
			}
		}
		ctl = ctl[min(len(ctl), (size+7)&^7):]
	}
	return fds
}

// readableNow reports whether a packet, or the end, can be read.
func readableNow(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	var now unix.Timespec
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno != 0 || p.Revents != 0
}

// unsent is how much of what was sent on a socket the peer has not read (unix(7),
// SIOCOUTQ), in a measure of the kernel's own.
func (s *scratch) unsent(fd int) int {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&s.left)))
	if errno != 0 {
		return 0
	}
	return int(s.left)
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

// send sends connections with one sendmsg(2); none is a message, too.
func (s *scratch) send(fd int, conns []conn) unix.Errno {
	n := len(conns)
	proto.Handover{Count: n}.Put(s.data[:])
	s.iov.Base = &s.data[0]
	s.iov.SetLen(len(s.data))
	s.msg = unix.Msghdr{Iov: &s.iov, Iovlen: 1}
	if n > 0 {
		head := (*unix.Cmsghdr)(unsafe.Pointer(&s.ctl[0]))
		head.Level, head.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		head.SetLen(unix.CmsgLen(4 * n))
		fds := unsafe.Slice((*int32)(unsafe.Pointer(&s.ctl[unix.CmsgLen(0)])), n)
		for i, c := range conns {
			fds[i] = int32(c.fd)
		}
		s.msg.Control = &s.ctl[0]
		s.msg.SetControllen(unix.CmsgSpace(4 * n))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// say sends a line on a stream, and a file along unless it is -1: all of it, or
// nothing. EMSGSIZE: a part of it went out.
func (s *scratch) say(fd int, line []byte, file int) unix.Errno {
	s.iov.Base = unsafe.SliceData(line)
	s.iov.SetLen(len(line))
	s.msg = unix.Msghdr{Iov: &s.iov, Iovlen: 1}
	if file >= 0 {
		head := (*unix.Cmsghdr)(unsafe.Pointer(&s.ctl[0]))
		head.Level, head.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		head.SetLen(unix.CmsgLen(4))
		*(*int32)(unsafe.Pointer(&s.ctl[unix.CmsgLen(0)])) = int32(file)
		s.msg.Control = &s.ctl[0]
		s.msg.SetControllen(unix.CmsgSpace(4))
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		s.iov.Base = nil
		switch {
		case errno == unix.EINTR:
			s.iov.Base = unsafe.SliceData(line)
			continue
		case errno == 0 && int(n) < len(line):
			return unix.EMSGSIZE
		}
		return errno
	}
}

// read receives from a stream.
func (s *scratch) read(fd int, buf []byte) (int, []int, unix.Errno) {
	s.iov.Base = unsafe.SliceData(buf)
	s.iov.SetLen(len(buf))
	s.msg = unix.Msghdr{Iov: &s.iov, Iovlen: 1, Control: &s.ctl[0]}
	s.msg.SetControllen(len(s.ctl))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	s.iov.Base = nil
	if errno != 0 {
		return 0, nil, errno
	}
	return int(n), descriptors(s.ctl[:min(int(s.msg.Controllen), len(s.ctl))]), 0
}

// lingers reports whether close(2) of the last descriptor of a socket may wait.
func lingers(fd int) bool {
	var l unix.Linger
	size := uint32(unsafe.Sizeof(l))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && l.Onoff != 0 && l.Linger != 0
}

// closeRaw closes a descriptor whose close(2) does not block: one of several of a
// socket, or that of one which we made.
func closeRaw(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// discard closes files whose close(2) may take as long as it likes: a worker made
// them (socket(7), SO_LINGER), or they have such in their queue (unix(7)).
func (d *Dispatcher) discard(fds ...int) {
	if len(fds) == 0 {
		return
	}
	d.aside.Go(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
}
