package fdpass

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// limitFree lets this process open so many descriptors more, until restore.
func limitFree(t *testing.T, n int) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	top, found := 0, 0
	for ; found < n; top++ {
		if _, err := unix.FcntlInt(uintptr(top), unix.F_GETFD, 0); err == unix.EBADF {
			found++
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(top), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHasRoom(t *testing.T) {
	for _, free := range []int{0, 1, 3, 5, 60, 64, 70, 200} {
		restore := limitFree(t, free)
		for _, want := range []int{1, 3, 4, 16, 64, 69, 70, 71, 200, 201} {
			if got := HasRoom(want); got != (want <= free) {
				t.Errorf("with %d free descriptors HasRoom(%d) is %v", free, want, got)
			}
		}
		restore()
	}
}

// Free numbers may lie anywhere below the limit.
func TestHasRoomInHoles(t *testing.T) {
	var holes []*File
	for range 300 {
		f, err := NewFile(0).Dup()
		if err != nil {
			t.Fatal(err)
		}
		holes = append(holes, f)
	}
	defer CloseAll(holes)
	restore := limitFree(t, 1)
	defer restore()
	if !HasRoom(1) || HasRoom(2) {
		t.Errorf("with one free: room for one %v, for two %v", HasRoom(1), HasRoom(2))
	}
	for _, i := range []int{3, 100, 250} {
		_ = holes[i].Close()
	}
	if !HasRoom(4) || HasRoom(5) {
		t.Errorf("with three holes: room for four %v, for five %v", HasRoom(4), HasRoom(5))
	}
}

// What was closed since the table was full says nothing of what lies between.
func TestHasRoomApart(t *testing.T) {
	var files []*File
	for range 300 {
		f, err := NewFile(0).Dup()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	defer CloseAll(files)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(files[299].Fd() + 1), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }()
	for i := 299; i >= 0; i -= 22 {
		_ = files[i].Close()
		if HasRoom(64) {
			t.Fatalf("room for 64 with the last of every 22 free, %d", i)
		}
	}
}

// Take leaves a packet whose files it has no room for.
func TestTake(t *testing.T) {
	noLeak(t)
	a, b := pair(t)
	buf := make([]byte, 16)
	two := func(data []byte) int { return int(data[0]) }
	if _, _, err := b.TryTake(buf, 3, two); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("without a packet: %v", err)
	}
	x, y := file(t, "x"), file(t, "y")
	restore := limitFree(t, 1)
	_, _, empty := b.TryTake(buf, 3, two)
	if err := a.Send([]byte{2}, x, y); err != nil {
		restore()
		t.Fatal(err)
	}
	_, _, tried := b.TryTake(buf, 3, two)
	_, _, took := b.Take(buf, 3, two)
	restore()
	if !errors.Is(empty, unix.EAGAIN) || !errors.Is(tried, unix.EMFILE) || !errors.Is(took, unix.EMFILE) {
		t.Fatalf("without room: %v before there was a packet, then %v, %v", empty, tried, took)
	}
	restore = limitFree(t, 2)
	n, files, err := b.Take(buf, 3, two)
	restore()
	if n != 1 || len(files) != 2 || err != nil {
		t.Fatalf("with room: %d %v %v", n, files, err)
	}
	CloseAll(files)
}

func BenchmarkHasRoom(b *testing.B) {
	for range b.N {
		HasRoom(16)
	}
}
