package dispatch

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A dispatcher that is killed leaves descriptors with workers that they have not
// acknowledged. The next one would take those acknowledgements for answers to its own, so
// how many there are stands in a page that outlives it (Peer.Page).

// adopt maps the page, and takes note of what an earlier dispatcher has left there.
func (p *peer) adopt() error {
	f := p.Page.Fd()
	if f < 0 {
		return nil
	}
	var err error
	if p.page, err = unix.Mmap(f, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	p.old = int(min(max(atomic.LoadInt64(p.noted()), 0), maxLetters))
	p.stale = p.old
	return nil
}

func (p *peer) noted() *int64 { return (*int64)(unsafe.Pointer(&p.page[0])) }

// note writes down for the next dispatcher how many acknowledgements are to come, and
// more that are about to be.
func (p *peer) note(more int) {
	if p.page != nil {
		atomic.StoreInt64(p.noted(), int64(p.old+len(p.sent)+more))
	}
}

func (p *peer) unmap() {
	if p.page != nil {
		_ = unix.Munmap(p.page)
	}
	p.page = nil
}
