package socket

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

var unixTypes = map[string]int{
	"unix":       unix.SOCK_STREAM,
	"unixpacket": unix.SOCK_SEQPACKET,
	"unixgram":   unix.SOCK_DGRAM,
}

// maxPath is the longest path that fits sun_path with its terminating zero
// (unix(7)). An abstract name could have one byte more, but x/sys refuses that.
const maxPath = 107

// bindUnix makes a Unix socket. For a path, while it works, it holds the lock of
// the parent directory, so that two masters cannot take each other's socket that
// is bound and does not listen yet for a stale one:
//
//	open parent -> flock -> bind -> chown, chmod -> listen -> close parent
//	                         | EADDRINUSE
//	                         +-> lstat, probe: stale -> lstat again, unlink -> bind
func bindUnix(spec proto.SocketSpec) (*fdpass.File, proto.Bound, error) {
	if err := checkPath(spec); err != nil {
		return nil, proto.Bound{}, err
	}
	if strings.HasPrefix(spec.Address, "@") {
		return bindAbstract(spec)
	}
	if spec.Confine != nil {
		return bindConfined(spec)
	}
	path := absolute(spec.Address)
	if len(path) > maxPath {
		return nil, proto.Bound{}, tooLong(spec, path)
	}
	dir, err := openDirectory(unix.AT_FDCWD, filepath.Dir(path))
	if err != nil {
		return nil, proto.Bound{}, fail(spec, "bind", err, "opening the directory "+filepath.Dir(path))
	}
	defer dir.Close()
	return bindPath(spec, dir, path)
}

func checkPath(spec proto.SocketSpec) error {
	path, abstract := strings.CutPrefix(spec.Address, "@")
	switch {
	case path == "":
		return fail(spec, "bind", unix.EINVAL, "the path is empty")
	case strings.ContainsRune(path, 0):
		return fail(spec, "bind", unix.EINVAL, "the path contains a zero byte")
	case abstract && len(spec.Address) > maxPath:
		return tooLong(spec, spec.Address)
	case abstract && (spec.Mode != nil || spec.Owner != nil || spec.Group != nil || spec.ReadableAll || spec.WritableAll):
		return fail(spec, "bind", unix.EINVAL, "an abstract name has no owner and no mode")
	case !abstract && strings.HasSuffix(path, "/"):
		return fail(spec, "bind", unix.EINVAL, "the path ends in a slash")
	}
	return nil
}

func tooLong(spec proto.SocketSpec, path string) error {
	return failAt(spec, "bind", path, unix.ENAMETOOLONG, "a Unix path has at most 107 bytes")
}

func bindAbstract(spec proto.SocketSpec) (*fdpass.File, proto.Bound, error) {
	fd, err := unixSocket(spec)
	if err != nil {
		return nil, proto.Bound{}, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: spec.Address}); err != nil {
		_ = unix.Close(fd)
		return nil, proto.Bound{}, fail(spec, "bind", err, "")
	}
	b, err := listenUnix(fd, spec, spec.Address)
	if err != nil {
		_ = unix.Close(fd)
		return nil, proto.Bound{}, err
	}
	return fdpass.NewFile(fd), b, nil
}

func unixSocket(spec proto.SocketSpec) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unixTypes[spec.Network]|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fail(spec, "make a socket for", err, "")
	}
	if name, err := apply(fd, bufferOptions(spec)); err != nil {
		_ = unix.Close(fd)
		return -1, fail(spec, "set "+name+" on", err, "")
	}
	return fd, nil
}

// bindPath binds path, whose parent is held in dir (borrowed).
func bindPath(spec proto.SocketSpec, dir *directory, path string) (*fdpass.File, proto.Bound, error) {
	fd, err := unixSocket(spec)
	if err != nil {
		return nil, proto.Bound{}, err
	}
	b, err := bindAndListen(fd, spec, dir, path)
	if err != nil {
		_ = unix.Close(fd)
		return nil, proto.Bound{}, err
	}
	return fdpass.NewFile(fd), b, nil
}

func bindAndListen(fd int, spec proto.SocketSpec, dir *directory, path string) (b proto.Bound, err error) {
	if spec.Mode != nil {
		// unix(7): the mode of the new path is that of the socket's own inode, less
		// the umask. So it never has more than it should, and the umask, which
		// belongs to the whole process, is left alone.
		if err := unix.Fchmod(fd, *spec.Mode&0o777); err != nil {
			return b, failAt(spec, "set the mode of", path, err, "")
		}
	}
	dir.lock()
	if err := bindOrHeal(fd, spec, dir, path); err != nil {
		return b, err
	}
	name := filepath.Base(path)
	var st unix.Stat_t
	if err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return b, failAt(spec, "find", path, err, "its directory was moved or changed meanwhile")
	}
	if err := isOurs(spec, path, &st); err != nil {
		return b, err
	}
	defer func() {
		if err != nil {
			_ = dir.unlink(name, uint64(st.Dev), st.Ino)
		}
	}()
	if err := dress(spec, dir, name, &st); err != nil {
		return b, failAt(spec, "set owner and mode of", path, err, "")
	}
	b, err = listenUnix(fd, spec, path)
	b.Device, b.Inode = uint64(st.Dev), st.Ino
	return b, err
}

// isOurs checks that what the held directory shows under the name is the socket
// that bind(2) just made at path, which it resolved on its own.
func isOurs(spec proto.SocketSpec, path string, st *unix.Stat_t) error {
	var at unix.Stat_t
	err := unix.Lstat(path, &at)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK, at.Ino != st.Ino, at.Dev != st.Dev,
		spec.Confine != nil && st.Uid != uint32(spec.Confine.UID):
		err = unix.EACCES
	default:
		return nil
	}
	return failAt(spec, "bind", path, err, "its directory was changed meanwhile")
}

func listenUnix(fd int, spec proto.SocketSpec, path string) (proto.Bound, error) {
	b := proto.Bound{Address: path}
	if proto.IsDatagram(spec.Network) {
		return b, nil
	}
	if err := unix.Listen(fd, backlog(spec)); err != nil {
		return b, failAt(spec, "listen on", path, err, "")
	}
	b.Backlog = capped(backlog(spec))
	return b, nil
}

// dress sets owner and mode of the new path, before listen(2), so that nobody
// connects by rights that it should not have. It works on an O_PATH descriptor
// of the very inode: no name is resolved twice and no link followed.
func dress(spec proto.SocketSpec, dir *directory, name string, st *unix.Stat_t) error {
	mode := st.Mode & 0o777
	if spec.Mode != nil {
		mode = *spec.Mode & 0o777
	}
	if spec.ReadableAll {
		mode |= 0o444
	}
	if spec.WritableAll {
		mode |= 0o222
	}
	owner, group := -1, -1
	if spec.Owner != nil {
		owner = *spec.Owner
	}
	if spec.Group != nil {
		group = *spec.Group
	}
	if mode == st.Mode&0o777 && owner < 0 && group < 0 {
		return nil
	}
	fd, err := unix.Openat(dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return err
	}
	if now.Ino != st.Ino || now.Dev != st.Dev {
		return unix.EACCES
	}
	if owner >= 0 || group >= 0 {
		if err := unix.Fchownat(fd, "", owner, group, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	return chmodPath(fd, mode)
}

// Unlink removes the path of a Unix socket that Bind made, if device and inode
// are still those of b. Nothing to remove (another network, an abstract name, an
// inherited socket, a path that is gone) is no error. ErrForeign means that the
// path belongs to another file now, which was left alone; other errors are the
// errno of the file system, EACCES and EROFS among them.
func Unlink(b proto.Bound) error {
	if b.Inode == 0 || b.Inherited || b.Address == "" || strings.HasPrefix(b.Address, "@") {
		return nil
	}
	fd, err := unix.Open(filepath.Dir(b.Address), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		d := directory{fd: fd}
		err = d.unlink(filepath.Base(b.Address), b.Device, b.Inode)
		d.Close()
	}
	if errors.Is(err, unix.ENOENT) || err == nil {
		return nil
	}
	return &Error{Op: "remove", Network: "unix", Address: b.Address, Err: err}
}
