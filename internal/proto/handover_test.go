package proto

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzReadHandover: what is read is what Put wrote, within the bounds that the
// receiver relies on; anything else is ErrBadHandover.
func FuzzReadHandover(f *testing.F) {
	for _, h := range []Handover{{0, 1}, {7, 3}, {1<<32 - 1, MaxHandover}, {5, 0}, {5, MaxHandover + 1}, {5, 1<<16 - 1}} {
		b := make([]byte, HandoverSize)
		h.Put(b)
		f.Add(b)
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, HandoverSize-1), make([]byte, HandoverSize), make([]byte, HandoverSize+1)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadHandover(b)
		if err != nil {
			if h != (Handover{}) || !errors.Is(err, ErrBadHandover) {
				t.Errorf("%v, %v", h, err)
			}
			return
		}
		if len(b) != HandoverSize || h.Count == 0 || h.Count > MaxHandover {
			t.Errorf("%x was taken for %+v", b, h)
		}
		again := make([]byte, HandoverSize)
		h.Put(again)
		if !bytes.Equal(b[:6], again[:6]) {
			t.Errorf("%x was written as %x", b, again)
		}
	})
}

// FuzzReadVerdict is the same for the other way.
func FuzzReadVerdict(f *testing.F) {
	for _, v := range []Verdict{{0, 1, Accepted}, {7, 3, Refused}, {1<<32 - 1, MaxHandover, Accepted}, {0, 0, Room}, {9, 1<<16 - 1, Room},
		{5, 0, Accepted}, {5, MaxHandover + 1, Refused}, {5, 1, 0}, {5, 1, Room + 1}, {5, 1, 1<<16 - 1}} {
		b := make([]byte, HandoverSize)
		v.Put(b)
		f.Add(b)
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, HandoverSize-1), make([]byte, HandoverSize), make([]byte, HandoverSize+1)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ReadVerdict(b)
		if err != nil {
			if v != (Verdict{}) || !errors.Is(err, ErrBadHandover) {
				t.Errorf("%v, %v", v, err)
			}
			return
		}
		known := v.What == Accepted || v.What == Refused || v.What == Room
		if len(b) != HandoverSize || !known || v.What != Room && (v.Count == 0 || v.Count > MaxHandover) {
			t.Errorf("%x was taken for %+v", b, v)
		}
		again := make([]byte, HandoverSize)
		v.Put(again)
		if !bytes.Equal(b, again) {
			t.Errorf("%x was written as %x", b, again)
		}
	})
}
