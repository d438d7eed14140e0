package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// stocked is a page that nobody has yet, and its slot.
type stocked struct {
	page *ebpf.Map
	at   uint32
}

// newPage hands out a page that the program can read already.
func (k *kernel) newPage() (*fdpass.File, error) {
	if len(k.stock) == 0 {
		if err := k.fill(); err != nil {
			return nil, err
		}
	}
	last := len(k.stock) - 1
	m := k.stock[last].page
	fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	k.slots[k.stock[last].at].stock = false
	k.stock = k.stock[:last]
	_ = m.Close()
	return fdpass.NewFile(fd), nil
}

// fill makes pages and puts them where the program finds them.
func (k *kernel) fill() (err error) {
	var maps []*ebpf.Map
	defer func() {
		if err != nil {
			for _, m := range maps {
				_ = m.Close()
			}
		}
	}()
	keys, fds := make([]uint32, inStock), make([]uint32, inStock)
	for i := range inStock {
		m, err := ebpf.NewMap(pageSpec)
		if err != nil {
			return fmt.Errorf("page: %w", err)
		}
		maps = append(maps, m)
		keys[i], fds[i] = k.free(), uint32(m.FD())
	}
	if _, err = k.pages.BatchUpdate(keys, fds, nil); errors.Is(err, ebpf.ErrNotSupported) {
		for i := range keys {
			if err = k.pages.Put(keys[i], fds[i]); err != nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	for i, key := range keys {
		k.slots[key] = slot{id: idOf(maps[i]), stock: true}
		k.stock = append(k.stock, stocked{maps[i], key})
	}
	return nil
}

// free returns the next slot that no member uses and that is not in stock. There
// always is one: members and stock are fewer than slots.
func (k *kernel) free() uint32 {
	for {
		at := k.next
		k.next = (k.next + 1) % maxPages
		if s := &k.slots[at]; s.used == 0 && !s.stock {
			return uint32(at)
		}
	}
}

// slotOf returns where the program finds a page, whose file it borrows. One that is
// not there, or no more, is put there.
func (k *kernel) slotOf(f *fdpass.File) (uint32, error) {
	fd, err := unix.FcntlInt(uintptr(f.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return noPage, fmt.Errorf("page: %w", err)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return noPage, fmt.Errorf("the page is not of the kind that the program reads: %w", err)
	}
	defer func() { _ = m.Close() }()
	id := idOf(m)
	for i := range k.slots {
		if id != 0 && k.slots[i].id == id {
			return uint32(i), nil
		}
	}
	at := k.free()
	if err := k.pages.Put(at, uint32(m.FD())); err != nil {
		return noPage, fmt.Errorf("the page is not of the kind that the program reads: %w", err)
	}
	k.slots[at] = slot{id: id}
	return at, nil
}

// idOf returns the number that the kernel gave a map; 0 when it cannot be had.
func idOf(m *ebpf.Map) ebpf.MapID {
	info, err := m.Info()
	if err != nil {
		return 0
	}
	id, _ := info.ID()
	return id
}
