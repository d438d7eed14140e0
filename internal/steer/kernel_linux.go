package steer

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// errNoGroup: the socket got SO_REUSEPORT after it began to listen, and no other
// has joined it.
var errNoGroup = errors.New("the socket is in no group yet")

// kernel is the eBPF side of a group: one program with maps of its own. members
// and states are mapped, and we write their fields atomically one by one; an update
// of a whole element by bpf(2) would put back what the program counted meanwhile.
type kernel struct {
	program *ebpf.Program
	socks   *ebpf.Map
	members *ebpf.Map
	states  *ebpf.Map
	pages   *ebpf.Map

	mem   [][]byte
	state *state
	entry *[MaxMembers]entry

	stock []stocked          // the next last
	at    [MaxMembers]uint32 // which page a member has, or noPage
	blind bool               // no page is shown to the program
	slots [maxPages]slot
	next  int // where a free slot is looked for
}

// slot is a place in pages.
type slot struct {
	id    ebpf.MapID
	stock bool // in stock
	used  int  // by how many members
}

const (
	// maxPages leaves each member two workers. What was served by nobody for the
	// longest time gives way.
	maxPages = 2 * MaxMembers
	// inStock is how many pages are made at once. The kernel waits for all running
	// programs at each update of a map of maps, but at a batch only once.
	inStock = 8
)

var pageSpec = &ebpf.MapSpec{Name: "page", Type: ebpf.Array, KeySize: 4, ValueSize: pageSize, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE}

// newKernel loads maps and program. It says what an operator can do when it fails.
func newKernel() (k *kernel, err error) {
	k = &kernel{}
	defer func() {
		if err != nil {
			_ = k.close()
			k = nil
		}
	}()
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&k.socks, ebpf.MapSpec{Name: "socks", Type: ebpf.ReusePortSockArray, ValueSize: 8, MaxEntries: MaxMembers}},
		{&k.members, ebpf.MapSpec{Name: "members", Type: ebpf.Array, ValueSize: uint32(unsafe.Sizeof(entry{})), MaxEntries: MaxMembers,
			Flags: unix.BPF_F_MMAPABLE}},
		{&k.states, ebpf.MapSpec{Name: "states", Type: ebpf.Array, ValueSize: uint32(unsafe.Sizeof(state{})), MaxEntries: 1,
			Flags: unix.BPF_F_MMAPABLE}},
		{&k.pages, ebpf.MapSpec{Name: "pages", Type: ebpf.ArrayOfMaps, ValueSize: 4, MaxEntries: maxPages, InnerMap: pageSpec}},
	} {
		m.spec.KeySize = 4
		if *m.to, err = ebpf.NewMap(&m.spec); err != nil {
			return k, explain("cannot make the steering maps", err)
		}
	}
	k.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "steer", Type: ebpf.SkReuseport, License: "Apache-2.0",
		Instructions: program(k.socks, k.members, k.states, k.pages)})
	if err != nil {
		return k, explain("cannot load the steering program", err)
	}
	mem, err := k.mmap(k.members, int(unsafe.Sizeof(*k.entry)))
	if err != nil {
		return k, err
	}
	k.entry = (*[MaxMembers]entry)(mem)
	if mem, err = k.mmap(k.states, int(unsafe.Sizeof(*k.state))); err != nil {
		return k, err
	}
	k.state = (*state)(mem)
	k.state.only = noMember
	for i := range k.entry {
		k.entry[i].page, k.at[i] = noPage, noPage
	}
	return k, nil
}

// explain adds what an operator can do. bpf(2).
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w (grant CAP_BPF; before Linux 5.8 CAP_SYS_ADMIN; before 5.11 check RLIMIT_MEMLOCK)", what, err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: %w (the kernel has no BPF)", what, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: %w (the kernel may be too old: 5.8 or later is needed)", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (k *kernel) mmap(m *ebpf.Map, size int) (unsafe.Pointer, error) {
	mem, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map the steering maps: %w", err)
	}
	k.mem = append(k.mem, mem)
	return unsafe.Pointer(&mem[0]), nil
}

// add attaches the program to the group of a socket and makes it eligible. The
// program goes first: it takes the place of a predecessor's, without which the
// kernel never lets go of the socket.
func (k *kernel) add(id, fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, k.program.FD())
	if errors.Is(err, unix.EINVAL) {
		return errNoGroup
	}
	if err != nil {
		return fmt.Errorf("cannot attach the steering program: %w", err)
	}
	// A socket can be in one such map, and there once: not replaced by itself.
	if err = k.socks.Delete(uint32(id)); err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
		err = k.socks.Put(uint32(id), uint64(fd))
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	case errors.Is(err, unix.EINVAL):
		return errNoGroup
	case err != nil:
		return fmt.Errorf("cannot steer to the socket: %w", err)
	}
	atomic.StoreUint32(&k.state.n, max(k.state.n, uint32(id)+1))
	return nil
}

// serve begins to count for a new worker. Page before base before ready: a pick in
// between sees the new page with the old base, so a load that is too large, and
// takes another member. Resting meanwhile would be worse: were it the only one that
// is ready, the kernel's hash would send connections to members without a worker.
// A pick of the predecessor's that is counted after picked was read is drift of 1.
func (k *kernel) serve(id int, at uint32, m *member) {
	e := &k.entry[id]
	old := k.at[id]
	var accepted uint64
	if m.page != nil {
		var closed uint64
		accepted, closed = m.page.read()
		if open := int64(accepted - closed); open < 0 || open > absurd {
			accepted = 0 // nonsense, and stays so: see program
		}
	}
	k.at[id] = at
	k.show(id)
	atomic.StoreUint64(&e.base, atomic.LoadUint64(&e.picked)-accepted-uint64(m.queue()))
	atomic.StoreUint32(&e.ready, 1)
	if old != noPage {
		k.slots[old].used--
	}
	if at != noPage {
		k.slots[at].used++
	}
}

func (k *kernel) setReady(id int, ready bool) {
	atomic.StoreUint32(&k.entry[id].ready, number(ready))
}

// setBlind hides the pages from the program, or shows them. A member without a page
// is as good as one without connections, so the members take turns.
func (k *kernel) setBlind(blind bool) {
	if k.blind == blind {
		return
	}
	k.blind = blind
	for id := range k.at {
		k.show(id)
	}
}

func (k *kernel) show(id int) {
	at := k.at[id]
	if k.blind {
		at = noPage
	}
	atomic.StoreUint32(&k.entry[id].page, at)
}

func (k *kernel) setOnly(id int) { atomic.StoreUint32(&k.state.only, uint32(int32(id))) }

// sent returns how many connections the member's worker was sent.
func (k *kernel) sent(id int) uint64 {
	e := &k.entry[id]
	return atomic.LoadUint64(&e.picked) - e.base
}

// forgive takes n picks out of a member's load, or adds -n to it.
func (k *kernel) forgive(id int, n int64) {
	if e := &k.entry[id]; n != 0 {
		atomic.StoreUint64(&e.base, e.base+uint64(n))
	}
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// close frees everything. What is attached to open sockets lives on with them.
func (k *kernel) close() error {
	var err error
	for _, mem := range k.mem {
		err = errors.Join(err, unix.Munmap(mem))
	}
	maps := []*ebpf.Map{k.socks, k.members, k.states, k.pages}
	for _, s := range k.stock {
		maps = append(maps, s.page)
	}
	for _, m := range maps {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	if k.program != nil {
		err = errors.Join(err, k.program.Close())
	}
	*k = kernel{}
	return err
}
