package steer

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// A page is where one worker counts its connections. It maps the file MAP_SHARED
// at offset 0, and adds atomically, accepted always before closed:
//
//	offset 0   accepted  uint64, in the machine's byte order
//	offset 8   closed    uint64
const pageSize = 16

// page is our mapping of a worker's page.
type page struct {
	mem  []byte
	data *counters
}

type counters struct{ accepted, closed uint64 }

// NewPage makes the page of one worker, which the caller owns and sends to the
// worker and gives to Serve. In Steered mode one call in eight waits for the kernel
// (a grace period of RCU, 5 to 30 ms). Errors: EMFILE, ENOMEM.
func (g *Group) NewPage() (*fdpass.File, error) {
	if g.k != nil {
		return g.k.newPage()
	}
	return fdpass.NewPage("connections")
}

// mapPage maps a page, whose file it borrows. A file that its holder could cut
// short is refused: reading behind its end would kill us.
func mapPage(f *fdpass.File) (*page, error) {
	fd := f.Fd()
	if fd < 0 {
		return nil, fdpass.ErrClosed
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	if st.Mode&unix.S_IFMT != 0 { // a map of BPF has no type
		seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
		if err != nil || seals&unix.F_SEAL_SHRINK == 0 || st.Size < pageSize {
			return nil, fmt.Errorf("the page is no sealed file: %w", unix.EINVAL)
		}
	}
	mem, err := unix.Mmap(fd, 0, pageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map the page: %w", err)
	}
	return &page{mem: mem, data: (*counters)(unsafe.Pointer(&mem[0]))}, nil
}

// read returns the counters. They were never read in an order in which a sane
// worker has closed more than it has accepted.
func (p *page) read() (accepted, closed uint64) {
	closed = atomic.LoadUint64(&p.data.closed)
	return atomic.LoadUint64(&p.data.accepted), closed
}

func (p *page) close() {
	if p != nil && p.mem != nil {
		_ = unix.Munmap(p.mem)
		p.mem, p.data = nil, nil
	}
}
