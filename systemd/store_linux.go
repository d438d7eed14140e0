package systemd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// NewNotifierOn sends on a connected datagram or seqpacket socket instead of the address
// that NOTIFY_SOCKET names, and takes it.
func NewNotifierOn(socket *fdpass.File) *Notifier { return &Notifier{socket: socket, connected: true} }

// Gone blocks until the manager's end of the socket of NewNotifierOn is closed, and
// returns nil then; or until Close, fdpass.ErrClosed. Without such a socket it returns
// ENOTCONN at once. Errors: those of dup(2).
func (n *Notifier) Gone() error {
	if !n.connected {
		return unix.ENOTCONN
	}
	dup, err := n.socket.Dup()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup.Release()), "manager")
	n.gone.Store(f)
	defer f.Close()
	if n.socket.Fd() < 0 {
		return fdpass.ErrClosed
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		got, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN && err != unix.EINTR && got <= 0
	})
	if err != nil {
		return fdpass.ErrClosed
	}
	return nil
}

// Store gives the manager files to keep under a name while this service is away
// (FDSTORE=1, sd_pid_notify_with_fds(3)); [Inherited] returns them to the next process of
// the service. The files are borrowed. They are kept whatever becomes of them (FDPOLL=0):
// a manager that looks drops sockets that were shut down and ends of pipes whose other
// end is closed. A file that is kept already is not kept again, under whatever name.
//
// A name has 1 to 255 characters out of letters, digits, ".", "_" and "-"; several files
// may have the same. Errors as of SendFiles, and EINVAL for another name. No error says
// that the manager has no room (FileDescriptorStoreMax=); see HasStore.
func (n *Notifier) Store(name string, files ...*fdpass.File) error {
	if !isStoreName(name) {
		return fmt.Errorf("file descriptor store: name %.40q: %w", name, unix.EINVAL)
	}
	return n.SendFiles(files, "FDSTORE=1", "FDPOLL=0", "FDNAME="+name)
}

// Unstore lets the manager close every file of a name. Errors as of Send.
func (n *Notifier) Unstore(name string) error {
	return n.Send("FDSTOREREMOVE=1", "FDNAME="+name)
}

func isStoreName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// probeName is kept for a moment, to see whether it is.
const probeName = "supervisord-probe"

// HasStore reports whether the manager keeps files. It gives it the one end of a pipe and
// looks whether that is still open when the manager has read the message; $FDSTORE would
// say it from systemd 254 on only. It waits for the manager, for at most limit.
//
// Errors: ETIMEDOUT when the manager did not read in time,
// those of pipe2(2) and SendFiles.
func (n *Notifier) HasStore(limit time.Duration) (bool, error) {
	if !n.Enabled() {
		return false, nil
	}
	var probe [2]int
	if err := unix.Pipe2(probe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return false, fmt.Errorf("pipe: %w", err)
	}
	kept := fdpass.NewFile(probe[0])
	defer unix.Close(probe[1])
	err := n.Store(probeName, kept)
	_ = kept.Close()
	if err != nil {
		return false, err
	}
	if err := n.Barrier(limit); err != nil {
		return false, err
	}
	fds := []unix.PollFd{{Fd: int32(probe[1])}}
	if _, err := unix.Poll(fds, 0); err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("poll: %w", err)
	}
	if fds[0].Revents&unix.POLLERR != 0 { // pipe(7): no reader is left
		return false, nil
	}
	return true, n.Unstore(probeName)
}

// Barrier waits until the manager has read all that was sent before (sd_notify_barrier(3)),
// for at most limit. Errors: ETIMEDOUT, those of pipe2(2) and SendFiles.
func (n *Notifier) Barrier(limit time.Duration) error {
	if !n.Enabled() {
		return nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(ends[0])
	theirs := fdpass.NewFile(ends[1])
	err := n.SendFiles([]*fdpass.File{theirs}, "BARRIER=1")
	_ = theirs.Close()
	if err != nil {
		return err
	}
	for end := time.Now().Add(limit); ; {
		fds := []unix.PollFd{{Fd: int32(ends[0])}}
		count, err := unix.Poll(fds, int(max(0, time.Until(end))/time.Millisecond)+1)
		switch {
		case count > 0:
			return nil // POLLHUP: the manager closed its end
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("poll: %w", err)
		case !time.Now().Before(end):
			return fmt.Errorf("the manager did not answer within %v: %w", limit, unix.ETIMEDOUT)
		}
	}
}
