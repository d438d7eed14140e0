package proto

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzChannel: what is read is what Put wrote, within the bounds that the receiver
// relies on; anything else is ErrBadHandover, and nothing is both.
func FuzzChannel(f *testing.F) {
	put := func(fn func([]byte)) {
		b := make([]byte, HandoverSize)
		fn(b)
		f.Add(b)
	}
	for _, n := range []int{0, 1, MaxHandover, MaxHandover + 1, 1<<32 - 1} {
		put(Handover{n}.Put)
	}
	for _, s := range []Standing{Full, Room, 0, Room + 1, 1<<32 - 1} {
		put(s.Put)
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, HandoverSize-1), make([]byte, HandoverSize), make([]byte, HandoverSize+1), {2, 0, 0, 0, 1, 0, 0, 0}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, herr := ReadHandover(b)
		s, serr := ReadStanding(b)
		again := make([]byte, HandoverSize)
		switch {
		case herr != nil && serr != nil:
			if h != (Handover{}) || s != 0 || !errors.Is(herr, ErrBadHandover) || !errors.Is(serr, ErrBadHandover) {
				t.Errorf("%v, %v; %v, %v", h, herr, s, serr)
			}
			return
		case herr == nil && serr == nil:
			t.Errorf("%x is %+v and %v", b, h, s)
		case herr == nil:
			if h.Count < 0 || h.Count > MaxHandover {
				t.Errorf("%x was taken for %+v", b, h)
			}
			h.Put(again)
		default:
			if s != Full && s != Room {
				t.Errorf("%x was taken for %v", b, s)
			}
			s.Put(again)
		}
		if !bytes.Equal(b, again) {
			t.Errorf("%x was written as %x", b, again)
		}
	})
}
