package census

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// From linux/unix_diag.h.
const (
	unixRequestSize = 24 // struct unix_diag_req
	unixMessageSize = 16 // struct unix_diag_msg

	showName  = 1 << 0 // UDIAG_SHOW_NAME
	showFile  = 1 << 1 // UDIAG_SHOW_VFS
	showQueue = 1 << 4 // UDIAG_SHOW_RQLEN

	nameAttr  = 0 // UNIX_DIAG_NAME
	fileAttr  = 1 // UNIX_DIAG_VFS
	queueAttr = 4 // UNIX_DIAG_RQLEN
)

// unixName is what a listening socket and the connections accepted on it have in
// common. The file tells a socket from the one that was bound to its path later.
type unixName struct {
	kind      int    // SOCK_STREAM, SOCK_SEQPACKET
	name      string // as bound: a path, perhaps with its NUL; an abstract name begins with NUL
	file, dev uint32 // inode and device of the path; 0 for an abstract name
}

// unixFound is a Unix socket as the kernel lists it.
type unixFound struct {
	unixName
	ino   uint32
	queue int
}

// unixSocket returns the socket of ours with this inode. Errors: ENOENT when there
// is none in our network namespace, or no sock_diag for Unix sockets.
func (d *diag) unixSocket(ino uint64) (unixFound, error) {
	var found unixFound
	request := unixRequest(0, uint32(ino), showName|showFile|showQueue)
	err := d.one(request, func(msg []byte) {
		if len(msg) < unixMessageSize {
			return
		}
		found.kind, found.ino = int(msg[1]), binary.NativeEndian.Uint32(msg[4:])
		listens := msg[2] == tcpListen
		attributes(msg[unixMessageSize:], func(kind uint16, value []byte) {
			switch {
			case kind == nameAttr:
				found.name = string(value)
			case kind == fileAttr && len(value) >= 8:
				found.file, found.dev = pair(value)
			case kind == queueAttr && len(value) >= 8 && listens:
				queue, _ := pair(value) // the second is the backlog
				found.queue = int(queue)
			}
		})
	})
	return found, err
}

// unixConns lists the inodes of the connections that have one of these names.
func (d *diag) unixConns(names map[unixName]int32, each func(at int32, ino uint32)) error {
	return d.list(unixRequest(1<<tcpEstablished, 0, showName|showFile), func(msg []byte) {
		if len(msg) < unixMessageSize {
			return
		}
		var name []byte
		var file, dev uint32
		attributes(msg[unixMessageSize:], func(kind uint16, value []byte) {
			switch {
			case kind == nameAttr:
				name = value
			case kind == fileAttr && len(value) >= 8:
				file, dev = pair(value)
			}
		})
		if at, ok := names[unixName{int(msg[1]), string(name), file, dev}]; ok {
			each(at, binary.NativeEndian.Uint32(msg[4:]))
		}
	})
}

func unixRequest(states, ino, show uint32) []byte {
	order := binary.NativeEndian
	b := append(make([]byte, 0, unixRequestSize), unix.AF_UNIX, 0, 0, 0)
	for _, n := range []uint32{states, ino, show, ^uint32(0), ^uint32(0)} { // the last two: any cookie
		b = order.AppendUint32(b, n)
	}
	return b
}

func pair(b []byte) (first, second uint32) {
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
}
