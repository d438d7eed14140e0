package fdpass

import (
	"errors"
	"testing"
)

func TestClosedFile(t *testing.T) {
	var zero File
	for _, f := range []*File{&zero, NewFile(-1), nil} {
		if f.Fd() != -1 || f.Release() != -1 {
			t.Errorf("%v has a descriptor", f)
		}
		if err := f.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("close: %v", err)
		}
		if _, err := f.Dup(); !errors.Is(err, ErrClosed) {
			t.Errorf("dup: %v", err)
		}
	}
}

func TestRelease(t *testing.T) {
	f := NewFile(1 << 20)
	if f.String() != "fd 1048576" || f.Release() != 1<<20 || f.Fd() != -1 {
		t.Errorf("release: %v", f)
	}
}
