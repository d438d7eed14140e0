package proto

import (
	"encoding/binary"
	"errors"
)

// A dispatched handle's grant carries a channel, a SOCK_SEQPACKET socket of its
// own, instead of the listening socket. On it the master hands connections over,
// and the worker says what became of them:
//
//	master                                     worker
//	  | Handover {first 7, count 3} + 3 files --> |
//	  | <----- Verdict {first 7, count 3, Accepted} |   before the program sees them
//	  | Handover {first 10, count 1} + 1 file --> |
//	  | <----- Verdict {first 10, count 1, Refused} |   goes to another worker
//	  | <----- Verdict {0, 0, Room} |                   it may be offered some again
//	  | <----- end of stream |                          refuses what has no verdict
//
// Both messages are HandoverSize bytes, little-endian.

// HandoverSize is the size of a Handover and of a Verdict, in bytes.
const HandoverSize = 8

// MaxHandover is how many connections one Handover may bring.
const MaxHandover = 64

// Handover brings Count connections, numbered from First; numbers wrap around.
type Handover struct {
	First uint32
	Count uint16
}

// What a Verdict says.
const (
	Accepted uint16 = 1 // they are the worker's, and the master forgets them
	Refused  uint16 = 2 // the worker closed its copies; no more until Room
	Room     uint16 = 3 // connections may come again
)

// Verdict answers for Count connections from First.
type Verdict struct {
	First uint32
	Count uint16
	What  uint16
}

// ErrBadHandover means bytes that are no Handover or Verdict.
var ErrBadHandover = errors.New("malformed hand-over")

// Put writes h to b, which has HandoverSize bytes.
func (h Handover) Put(b []byte) {
	binary.LittleEndian.PutUint32(b, h.First)
	binary.LittleEndian.PutUint16(b[4:], h.Count)
	binary.LittleEndian.PutUint16(b[6:], 0)
}

// ReadHandover is the inverse of Handover.Put. Error: ErrBadHandover.
func ReadHandover(b []byte) (Handover, error) {
	if len(b) != HandoverSize {
		return Handover{}, ErrBadHandover
	}
	h := Handover{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:])}
	if h.Count == 0 || h.Count > MaxHandover {
		return Handover{}, ErrBadHandover
	}
	return h, nil
}

// Put writes v to b, which has HandoverSize bytes.
func (v Verdict) Put(b []byte) {
	binary.LittleEndian.PutUint32(b, v.First)
	binary.LittleEndian.PutUint16(b[4:], v.Count)
	binary.LittleEndian.PutUint16(b[6:], v.What)
}

// ReadVerdict is the inverse of Verdict.Put. Error: ErrBadHandover.
func ReadVerdict(b []byte) (Verdict, error) {
	if len(b) != HandoverSize {
		return Verdict{}, ErrBadHandover
	}
	v := Verdict{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:])}
	if v.What < Accepted || v.What > Room || v.What != Room && (v.Count == 0 || v.Count > MaxHandover) {
		return Verdict{}, ErrBadHandover
	}
	return v, nil
}
