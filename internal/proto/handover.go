package proto

import (
	"encoding/binary"
	"errors"
)

// A dispatched handle's grant carries a channel, a SOCK_SEQPACKET socket of its
// own, instead of the listening socket. On it the master hands connections over:
//
//	master                                 worker
//	  | Handover {count 3} + 3 files -------> |   reading it is accepting them
//	  | Handover {count 1} + 1 file --------> |   not read: the master reads it back
//	  | Handover {count 0} -----------------> |   and learns by this when it has time
//	  | <------------------------------- Full |   no more, and what is unread goes back
//	  | <------------------------------- Room |   there may be some again
//
// The kernel hands a packet to one reader, so a connection is the worker's from the
// moment in which it has read it, and the master's until then: it holds a copy of
// the worker's end, and no copy of what it sent. All messages are HandoverSize bytes,
// little-endian.

// HandoverSize is the size of a message on a channel, in bytes.
const HandoverSize = 8

// MaxHandover is how many connections one Handover may bring.
const MaxHandover = 16

// What a message says.
const (
	kindHandover uint32 = 1
	kindFull     uint32 = 2
	kindRoom     uint32 = 3
)

// Handover brings Count connections, 0 to MaxHandover.
type Handover struct {
	Count int
}

// Standing is what a worker says of itself.
type Standing uint32

// The standings.
const (
	Full = Standing(kindFull) // it takes no more until it says Room
	Room = Standing(kindRoom) // it takes connections
)

// ErrBadHandover means bytes that are no Handover or Standing.
var ErrBadHandover = errors.New("malformed message on a channel")

// Put writes h to b, which has HandoverSize bytes.
func (h Handover) Put(b []byte) { put(b, kindHandover, uint32(h.Count)) }

// Put writes s to b, which has HandoverSize bytes.
func (s Standing) Put(b []byte) { put(b, uint32(s), 0) }

func put(b []byte, kind, count uint32) {
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint32(b[4:], count)
}

// ReadHandover is the inverse of Handover.Put. Error: ErrBadHandover.
func ReadHandover(b []byte) (Handover, error) {
	if len(b) != HandoverSize || binary.LittleEndian.Uint32(b) != kindHandover {
		return Handover{}, ErrBadHandover
	}
	count := binary.LittleEndian.Uint32(b[4:])
	if count > MaxHandover {
		return Handover{}, ErrBadHandover
	}
	return Handover{int(count)}, nil
}

// ReadStanding is the inverse of Standing.Put. Error: ErrBadHandover.
func ReadStanding(b []byte) (Standing, error) {
	if len(b) != HandoverSize || binary.LittleEndian.Uint32(b[4:]) != 0 {
		return 0, ErrBadHandover
	}
	s := Standing(binary.LittleEndian.Uint32(b))
	if s != Full && s != Room {
		return 0, ErrBadHandover
	}
	return s, nil
}
