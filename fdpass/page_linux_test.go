package fdpass

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Two mappings of a page are the same memory, and no holder can change its size.
func TestPage(t *testing.T) {
	f, err := NewPage("test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := unix.Mmap(f.Fd(), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(a)
	b, err := unix.Mmap(f.Fd(), 0, 8, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if a[3] = 7; b[3] != 7 {
		t.Error("what one writes the other does not read")
	}
	for _, size := range []int64{0, 1 << 20} {
		if err := unix.Ftruncate(f.Fd(), size); !errors.Is(err, unix.EPERM) {
			t.Errorf("ftruncate to %d: %v", size, err)
		}
	}
}
