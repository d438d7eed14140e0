package census

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// From linux/inet_diag.h.
const (
	inetRequestSize = 56 // struct inet_diag_req_v2
	inetMessageSize = 72 // struct inet_diag_msg
	inetBytecode    = 1  // INET_DIAG_REQ_BYTECODE
	bytecodeJump    = 1  // INET_DIAG_BC_JMP
	bytecodeFrom    = 2  // INET_DIAG_BC_S_GE
	bytecodeTo      = 3  // INET_DIAG_BC_S_LE
)

// manyRanges is from how many ranges of ports on the kernel is asked for all its
// connections: it tries each range on each.
const manyRanges = 256

// inetConn is a TCP connection as the kernel lists it.
type inetConn struct {
	local  netip.AddrPort
	device uint32
	ino    uint32
}

// inetConns lists the connections of a family whose own port is one of these, and
// perhaps others.
func (d *diag) inetConns(family int, ports []uint16, each func(inetConn)) error {
	request := make([]byte, inetRequestSize)
	request[0], request[1] = byte(family), unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], held)
	if ranges := rangesOf(ports); len(ranges) < manyRanges {
		code := bytecode(ranges)
		request = binary.NativeEndian.AppendUint16(request, uint16(unix.SizeofRtAttr+len(code)))
		request = binary.NativeEndian.AppendUint16(request, inetBytecode)
		request = append(request, code...)
	}
	return d.list(request, func(msg []byte) {
		if len(msg) < inetMessageSize {
			return
		}
		ip := netip.AddrFrom16([16]byte(msg[8:24]))
		if family == unix.AF_INET {
			ip = netip.AddrFrom4([4]byte(msg[8:12]))
		}
		each(inetConn{
			local:  netip.AddrPortFrom(ip, binary.BigEndian.Uint16(msg[4:])),
			device: binary.NativeEndian.Uint32(msg[40:]),
			ino:    binary.NativeEndian.Uint32(msg[68:]),
		})
	})
}

// portRange is from one port to another, both included.
type portRange struct{ from, to uint16 }

func rangesOf(ports []uint16) []portRange {
	ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	var ranges []portRange
	for _, port := range ports {
		if last := len(ranges) - 1; last >= 0 && ranges[last].to == port-1 {
			ranges[last].to = port
			continue
		}
		ranges = append(ranges, portRange{port, port})
	}
	return ranges
}

// bytecode is the filter that lets through the ports of the ranges. The kernel runs
// it for each socket: an operation goes on by yes or by no bytes, and arriving
// exactly at the end is a match, behind it is none. A range, of 20 bytes:
//
//	 0  from  yes 8   no 20 ──▶ next range, or behind the end
//	 8  to    yes 8   no 12 ──▶ the same
//	16  jump                ──▶ the end          (not in the last range)
//
// Every kernel knows these three. An operation for one port alone came later.
func bytecode(ranges []portRange) []byte {
	var b []byte
	op := func(code, yes byte, no int) {
		b = binary.NativeEndian.AppendUint16(append(b, code, yes), uint16(no))
	}
	for i, r := range ranges {
		op(bytecodeFrom, 8, 20)
		op(0, 0, int(r.from))
		op(bytecodeTo, 8, 12)
		op(0, 0, int(r.to))
		if rest := len(ranges) - 1 - i; rest > 0 {
			op(bytecodeJump, 4, 20*rest)
		}
	}
	return b
}
