package socket

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// bindOrHeal binds fd to path; when a stale socket is in the way it removes that
// and binds again. Anything else in the way stays, and the error is EADDRINUSE.
func bindOrHeal(fd int, spec proto.SocketSpec, dir *directory, path string) error {
	for attempt := 0; ; attempt++ {
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || attempt == 2 {
			return failAt(spec, "bind", path, err, "")
		}
		if hint := removeStale(unixTypes[spec.Network], dir, path); hint != "" {
			return failAt(spec, "bind", path, err, hint)
		}
	}
}

// removeStale removes the socket at path when nobody has it open. It returns ""
// when binding is worth another try, else why the path is left alone.
func removeStale(typ int, dir *directory, path string) string {
	name := filepath.Base(path)
	var st unix.Stat_t
	if err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return ""
		}
		return err.Error()
	}
	if kind := notSocket(st.Mode); kind != "" {
		return "it is " + kind + ", not a socket, and is not removed"
	}
	if !dir.locked {
		return "if it is stale, remove it: its directory could not be locked"
	}
	switch err := probe(typ, path); {
	case errors.Is(err, unix.ENOENT):
		return ""
	case errors.Is(err, unix.ECONNREFUSED):
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "whether another process listens on it cannot be seen: " + err.Error()
	default:
		return "another process has it open"
	}
	// Between lstat and here someone without our lock may have put a live socket
	// in its place: the inode decides.
	switch err := dir.unlink(name, uint64(st.Dev), st.Ino); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return ""
	case errors.Is(err, ErrForeign):
		return "another process took it just now"
	default:
		return "it is stale, and cannot be removed: " + err.Error()
	}
}

// probe connects to path. ECONNREFUSED means that no process has the socket
// open, or that it is bound and does not listen; EPROTOTYPE that one of another
// type is alive (unix_find_bsd in net/unix/af_unix.c looks for the socket first).
func probe(typ int, path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
}

func notSocket(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return ""
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFREG:
		return "a regular file"
	}
	return "a special file"
}
