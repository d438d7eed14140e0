package steer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// helper is set in a process that was started by a test, to what it shall do.
const helper = "STEER_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helper) == "page" {
		if err := json.NewEncoder(os.Stdout).Encode(usePage(3)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// again returns this test binary as an ordinary user with some capabilities. Its
// directory may be closed to others, the link in /proc is not.
func again(t *testing.T, what string, caps []uintptr, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 || os.Getenv(helper) != "" {
		t.Skip("needs root, to become another user")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = []string{helper + "=" + what}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
	return cmd
}

// TestUnprivilegedMaster: all of Hash mode works for an ordinary user, and what
// needs eBPF says what to grant.
func TestUnprivilegedMaster(t *testing.T) {
	out, err := again(t, "tests", nil, "-test.v").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestHashTCP", "--- PASS: TestFlowsStick", "--- PASS: TestLargeFilter", "--- PASS: TestOnly/hash",
		"--- PASS: TestMended/hash", "--- SKIP: TestLeastLoadedIsEven", "operation not permitted", "grant CAP_BPF"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestCapabilities: CAP_BPF is needed and enough.
func TestCapabilities(t *testing.T) {
	if k, err := newKernel(); err != nil {
		needBPF(t, err)
	} else {
		_ = k.close()
	}
	const tests = "^(TestLeastLoadedIsEven|TestResting|TestSuccessorBeginsAtZero|TestLate|TestAdopt|TestVerifier)$"
	out, err := again(t, "tests", []uintptr{unix.CAP_BPF}, "-test.v", "-test.run", tests).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("SKIP")) {
		t.Fatalf("with CAP_BPF: %v\n%s", err, out)
	}
	for _, c := range []uintptr{unix.CAP_NET_ADMIN, unix.CAP_PERFMON} {
		out, err := again(t, "tests", []uintptr{c}, "-test.v", "-test.run", "TestLeastLoadedIsEven").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("SKIP")) {
			t.Errorf("with capability %d alone: %v\n%s", c, err, out)
		}
	}
}

// tried is what an ordinary user can do with a page: errors by what was tried.
type tried map[string]string

// TestPageOfAnother: a worker without privilege maps its page and counts in it, and
// can do nothing else that anybody would notice.
func TestPageOfAnother(t *testing.T) {
	for _, mode := range []Mode{Steered, Hash} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t, "tcp4", mode, 1)
			w := r.worker(0)
			r.must(r.g.Serve(0, w.page))
			cmd := again(t, "page", nil)
			if mode == Steered {
				cmd.Env = append(cmd.Env, fmt.Sprintf("STEER_TEST_OTHER=%d", idOf(r.g.k.members)))
			}
			f := os.NewFile(uintptr(w.page.Fd()), "page")
			cmd.ExtraFiles = []*os.File{f}
			out, err := cmd.Output()
			r.must(err)
			_ = w.page.Release() // f has it
			defer func() { _ = f.Close() }()
			var got tried
			r.must(json.Unmarshal(out, &got))
			t.Logf("%v", got)
			// Its own numbers, by whichever way, and the description of its page.
			allowed := []string{"map", "count", "lookup", "update", "info"}
			if mode == Hash {
				allowed = []string{"map", "count"}
			}
			for what, err := range got {
				if (err == "") != slices.Contains(allowed, what) {
					t.Errorf("%s: %q", what, err)
				}
			}
			if accepted, _ := r.g.members[0].page.read(); accepted < 5 {
				t.Errorf("the worker counted 5, we read %d", accepted)
			}
		})
	}
}

// usePage is the worker of TestPageOfAnother.
func usePage(fd int) tried {
	got := tried{}
	note := func(what string, err error) {
		got[what] = ""
		if err != nil {
			got[what] = err.Error()
		}
	}
	mem, err := unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	note("map", err)
	if err != nil {
		return got
	}
	c := (*counters)(unsafe.Pointer(&mem[0]))
	atomic.AddUint64(&c.accepted, 5)
	note("count", nil)
	_, err = unix.Mmap(fd, int64(unix.Getpagesize()), pageSize, unix.PROT_READ, unix.MAP_SHARED)
	if os.Getenv("STEER_TEST_OTHER") == "" {
		err = unix.EFAULT // behind the end of a file one can map, and dies when one reads
	}
	note("map what is behind", err)
	note("cut short", unix.Ftruncate(fd, 0))

	key, value := uint32(0), counters{accepted: 6, closed: 1}
	elem := [4]uint64{uint64(uint32(fd)), uint64(uintptr(unsafe.Pointer(&key))), uint64(uintptr(unsafe.Pointer(&value)))}
	note("update", bpf(unix.BPF_MAP_UPDATE_ELEM, unsafe.Pointer(&elem), unsafe.Sizeof(elem)))
	note("lookup", bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&elem), unsafe.Sizeof(elem)))
	note("delete", bpf(unix.BPF_MAP_DELETE_ELEM, unsafe.Pointer(&elem), unsafe.Sizeof(elem)))
	note("freeze", bpf(unix.BPF_MAP_FREEZE, unsafe.Pointer(&elem), 4))
	key = 1
	note("update another element", bpf(unix.BPF_MAP_UPDATE_ELEM, unsafe.Pointer(&elem), unsafe.Sizeof(elem)))

	data := make([]byte, 256)
	info := [2]uint64{uint64(uint32(fd)) | uint64(len(data))<<32, uint64(uintptr(unsafe.Pointer(&data[0])))}
	note("info", bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&info), unsafe.Sizeof(info)))

	var other uint32
	_, _ = fmt.Sscan(os.Getenv("STEER_TEST_OTHER"), &other)
	id := [3]uint32{other}
	note("open another map", bpf(unix.BPF_MAP_GET_FD_BY_ID, unsafe.Pointer(&id), unsafe.Sizeof(id)))
	id = [3]uint32{}
	note("list maps", bpf(unix.BPF_MAP_GET_NEXT_ID, unsafe.Pointer(&id), unsafe.Sizeof(id)))
	create := [4]uint32{2, 4, 8, 1}
	note("make a map", bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create)))
	return got
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size); errno != 0 {
		return errno
	}
	return nil
}

// TestAdopt: a master that begins anew finds its predecessor's program on the
// sockets, and workers that have connections.
func TestAdopt(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	r.serveAll()
	r.spread(20)
	r.workers[0].close(4)
	r.must(r.g.k.close()) // as when it was killed: nothing is detached
	r.g.k, r.g.why = nil, ErrNoBPF
	r.spread(4)
	if got := r.held(); !slices.Equal(got, []int{10, 10}) {
		t.Fatalf("the program goes on without a master, but %v", got)
	}
	r.dial(1) // waits somewhere

	r.g = New(Options{})
	busy := 0
	for i := range r.socks {
		err := r.g.Add(i, r.socks[i])
		if errors.Is(err, ErrBusy) {
			busy++
		}
		r.add(i)
	}
	t.Logf("%d sockets were busy at first", busy)
	for i, w := range r.workers {
		r.must(r.g.Serve(i, w.page))
	}
	if sum := r.load(0) + r.load(1); sum != 21 {
		t.Fatalf("loads of %d and %d, want 21 together", r.load(0), r.load(1))
	}
	r.drain()
	r.spread(19)
	if got := r.held(); !slices.Equal(got, []int{20, 20}) {
		t.Fatalf("%v", got)
	}
}
