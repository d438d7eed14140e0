package worker

import (
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// memberPage is where a worker tells how many connections of a handle it has accepted
// from the kernel and closed: new ones go to others by it. It lives as long as the
// process.
type memberPage struct {
	counts *[2]uint64 // accepted, closed
}

// newMemberPage takes f. Errors: those of mmap(2).
func newMemberPage(f *fdpass.File) (*memberPage, error) {
	defer func() { _ = f.Close() }()
	mem, err := unix.Mmap(f.Fd(), 0, 16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &memberPage{(*[2]uint64)(unsafe.Pointer(&mem[0]))}, nil
}

func (p *memberPage) accepted() {
	if p != nil {
		atomic.AddUint64(&p.counts[0], 1)
	}
}

func (p *memberPage) closed() {
	if p != nil {
		atomic.AddUint64(&p.counts[1], 1)
	}
}

func (p *memberPage) set(accepted, closed uint64) {
	atomic.StoreUint64(&p.counts[0], accepted)
	atomic.StoreUint64(&p.counts[1], closed)
}
