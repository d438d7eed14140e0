package fdpass

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// NewPage makes one page of memory, zeroed, that whoever gets the file can map
// shared (mmap(2)). Its size is sealed: a file that one holder could cut short would
// kill the others when they read it (memfd_create(2), F_SEAL_SHRINK). The caller owns
// the file. Errors: EMFILE, ENFILE, ENOMEM.
func NewPage(name string) (*File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := NewFile(fd)
	if err = unix.Ftruncate(fd, int64(unix.Getpagesize())); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot seal a page: %w", err)
	}
	return f, nil
}
