package fdpass

import (
	"errors"
	"strconv"
	"sync/atomic"
)

// Limits of one packet. The kernel refuses more than 253 files (SCM_MAX_FD,
// unix(7)); 64 KiB is ours, far below what a default socket buffer takes, so
// that a packet never fails by its size alone.
const (
	MaxFiles   = 253
	MaxMessage = 64 << 10
)

var (
	// ErrNotSupported is returned on systems without SOCK_SEQPACKET and
	// SCM_RIGHTS as Linux has them.
	ErrNotSupported = errors.New("fdpass: not supported on this system")
	// ErrTooLarge means a packet larger than the limit or the buffer.
	ErrTooLarge = errors.New("fdpass: message too large")
	// ErrTooManyFiles means more files in a packet than the receiver allows.
	ErrTooManyFiles = errors.New("fdpass: too many files in a message")
	// ErrFilesLost means the kernel could not deliver all files of a packet
	// (MSG_CTRUNC): the receiver is at its descriptor limit, or a security
	// module refused the transfer. The files that did arrive were closed.
	ErrFilesLost = errors.New("fdpass: files of a message were lost (descriptor limit, or refused by a security module)")
	// ErrClosed means the File or Conn was closed.
	ErrClosed = errors.New("fdpass: use of a closed file")
)

// File owns one descriptor. Unlike [os.File] it never registers the descriptor
// with the runtime's poller (a listening socket would wake the process for each
// connection) and never changes its flags. A File is safe for concurrent use in
// so far as Close may race with the other methods; they then return ErrClosed.
// The zero value is a closed File.
type File struct {
	fd atomic.Int64 // descriptor + 1; 0 means closed
}

// NewFile takes ownership of fd. A negative fd gives a closed File.
func NewFile(fd int) *File {
	f := new(File)
	if fd >= 0 {
		f.fd.Store(int64(fd) + 1)
	}
	return f
}

// Fd lends the descriptor, or -1 when the File is closed. The caller must not
// close it, and must not use it after the File was closed.
func (f *File) Fd() int {
	if f == nil {
		return -1
	}
	return int(f.fd.Load()) - 1
}

// Release gives the descriptor away: the caller now owns it and the File is
// closed. It returns -1 when the File was closed already.
func (f *File) Release() int {
	if f == nil {
		return -1
	}
	return int(f.fd.Swap(0)) - 1
}

// Close closes the descriptor. A second Close returns ErrClosed.
func (f *File) Close() error {
	fd := f.Release()
	if fd < 0 {
		return ErrClosed
	}
	return closeFd(fd)
}

// Dup returns a second descriptor of the same open file, close-on-exec, owned by
// the caller. Both share offset and status flags; the blocking mode is not
// touched (fcntl(2), F_DUPFD_CLOEXEC). Errors: ErrClosed, EMFILE.
func (f *File) Dup() (*File, error) {
	fd := f.Fd()
	if fd < 0 {
		return nil, ErrClosed
	}
	n, err := dupFd(fd)
	if err != nil {
		return nil, err
	}
	return NewFile(n), nil
}

// String names the descriptor for messages: "fd 7".
func (f *File) String() string { return "fd " + strconv.Itoa(f.Fd()) }

// CloseAll closes every file of the list. It is for the receiver of files that
// nobody wants; the errors of close(2) are of no use there.
func CloseAll(files []*File) {
	for _, f := range files {
		_ = f.Close()
	}
}
