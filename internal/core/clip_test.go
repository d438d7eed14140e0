package core

import (
	"strings"
	"testing"
	"unsafe"
)

// What is kept of a long text does not keep the rest of it: a worker that said 1 MiB
// again and again took a gigabyte, by the 4 KiB that its events had of each.
func TestClip(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	s := clip(long, 10)
	if s != "xxxxxxxxxx" {
		t.Errorf("clipped to %q", s)
	}
	if unsafe.StringData(s) == unsafe.StringData(long) {
		t.Error("what is left is a part of the whole")
	}
}
