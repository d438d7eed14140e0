package census

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// States of a socket, TCP and Unix, from the kernel's tcp_states.h.
const (
	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpListen      = 10
	tcpClosing     = 11
)

// held are the states of connections that a process may have a descriptor of. In
// TIME_WAIT there is no socket any more.
const held = 1<<tcpEstablished | 1<<tcpFinWait1 | 1<<tcpFinWait2 | 1<<tcpCloseWait | 1<<tcpLastAck | 1<<tcpClosing

// ErrElsewhere: the socket is of another network namespace than we are, and of its
// connections our kernel tells us nothing.
var ErrElsewhere = errors.New("the socket is of another network namespace")

var errShort = errors.New("sock_diag: answer not understood")

// diag is a socket of sock_diag(7). The kernel answers in order, and within the
// call that reads, so that nothing here waits for long.
//
//	we                                       kernel
//	 │ nlmsghdr, request of the family  ──▶    │
//	 │    ◀── nlmsghdr, socket, attributes     │  one for each, many to a packet
//	 │    ◀── NLMSG_DONE, or NLMSG_ERROR       │
type diag struct {
	fd  int
	seq uint32
	buf []byte
}

func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket for sock_diag: %w", err)
	}
	// The kernel fills at most 32 KiB at once: netlink_recvmsg.
	return &diag{fd: fd, buf: make([]byte, 32<<10)}, nil
}

// near returns ErrElsewhere for a socket that sock_diag does not know here. Linux
// before 5.14 does not tell the namespaces apart: nil.
func (d *diag) near(fd int) error {
	ours, err := unix.GetsockoptUint64(d.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return nil
	}
	if its, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil && its != ours {
		return ErrElsewhere
	}
	return nil
}

func (d *diag) close() { _ = unix.Close(d.fd) }

// list asks for all sockets that fit, one for the answer of one. each gets what
// follows the header, valid until it returns. ENOENT means that the kernel has no
// sock_diag for the family.
func (d *diag) list(request []byte, each func(msg []byte)) error {
	return d.ask(unix.NLM_F_DUMP, request, each)
}

func (d *diag) one(request []byte, each func(msg []byte)) error {
	return d.ask(0, request, each)
}

func (d *diag) ask(flags uint16, request []byte, each func(msg []byte)) error {
	d.seq++
	order := binary.NativeEndian
	b := order.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(request)))
	b = order.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = order.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = order.AppendUint32(b, d.seq)
	b = order.AppendUint32(b, 0)
	if _, err := unix.Write(d.fd, append(b, request...)); err != nil {
		return err
	}
	for {
		n, err := unix.Read(d.fd, d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := d.packet(d.buf[:n], each); done || err != nil {
			return err
		}
	}
}

// packet hands on the messages of a packet, and reports whether the answer is
// complete.
func (d *diag) packet(b []byte, each func(msg []byte)) (done bool, err error) {
	order := binary.NativeEndian
	for len(b) >= unix.NLMSG_HDRLEN {
		length, kind, flags, seq := order.Uint32(b), order.Uint16(b[4:]), order.Uint16(b[6:]), order.Uint32(b[8:])
		if length < unix.NLMSG_HDRLEN || int(length) > len(b) {
			return false, errShort
		}
		msg := b[unix.NLMSG_HDRLEN:length]
		b = b[min(align(int(length)), len(b)):]
		if seq != d.seq {
			continue
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(msg) < 4 {
				return true, nil
			}
			if errno := -int32(order.Uint32(msg)); errno > 0 {
				return true, unix.Errno(errno)
			}
			return true, nil
		case unix.SOCK_DIAG_BY_FAMILY:
			each(msg)
			if flags&unix.NLM_F_MULTI == 0 {
				done = true
			}
		}
	}
	return done, nil
}

// attributes calls each for the attributes of a message. netlink(7).
func attributes(b []byte, each func(kind uint16, value []byte)) {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofRtAttr {
		length := int(order.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		each(order.Uint16(b[2:]), b[unix.SizeofRtAttr:length])
		b = b[min(align(length), len(b)):]
	}
}

// align rounds up to the 4 bytes of NLMSG_ALIGN and RTA_ALIGN.
func align(n int) int { return (n + 3) &^ 3 }
