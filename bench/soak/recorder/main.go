//go:build linux

// Recorder is the worker of the soak's torture scenarios. It answers one line a
// connection, and writes down each step before it does the next, so that after a
// kill -9 the files tell how far every connection had come:
//
//	O TIME PID PEER        it was offered: the worker has not answered for it yet
//	A TIME PID PEER        Accept returned it; nothing was read yet
//	R TIME PID PEER LINE   the client's line was read; nothing was written yet
//	W TIME PID PEER LINE   the line and the PID were sent back
//
// A record is one write(2) to a file opened with O_APPEND, DIRECTORY/PID: it is
// there whole once the call has returned, whatever becomes of the process. TIME is
// in nanoseconds since 1970. All of one hand-over are offered in one write, with
// one TIME.
//
//	recorder DIRECTORY
//
// It serves the listeners of its pool, and drains as examples/go-echo does.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/worker"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: recorder DIRECTORY")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

// recorder is one process with its file.
type recorder struct {
	file *os.File
	pid  string
	open sync.WaitGroup // connections and accept loops
}

func run(ctx context.Context, dir string) error {
	r := &recorder{pid: strconv.Itoa(os.Getpid())}
	var err error
	if r.file, err = os.OpenFile(filepath.Join(dir, r.pid), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	w, err := worker.Join(ctx, worker.Client("recorder"))
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	var listeners []net.Listener
	for _, e := range w.Listeners() {
		l, err := w.ListenName(ctx, e.Name)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	for _, l := range listeners {
		r.open.Go(func() { r.accept(l) })
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-w.Draining()
	for _, l := range listeners {
		_ = l.Close()
	}
	done := make(chan struct{})
	go func() { r.open.Wait(); close(done) }()
	timer := time.NewTimer(time.Until(w.DrainDeadline()))
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errors.New("clients are still connected at the deadline")
	}
}

func (r *recorder) accept(l net.Listener) {
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		r.stop("the channel", err)
	}
	known := 0 // of the last hand-over, Accept has not returned yet
	for {
		if known == 0 {
			known = r.offered(raw)
		}
		known--
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			r.stop("accept", err)
		}
		peer := c.RemoteAddr().String()
		r.write("A", peer)
		r.open.Go(func() { r.answer(c, peer) })
	}
}

// offered waits for the next hand-over, writes down whose connections it brings, and
// returns how many. It is left in the channel (MSG_PEEK gives a copy of each
// descriptor), so Accept is the one that answers for it, a moment later.
func (r *recorder) offered(raw syscall.RawConn) int {
	var data [64]byte
	var oob [2048]byte
	var n int
	var err error
	rerr := raw.Read(func(fd uintptr) bool {
		_, n, _, _, err = unix.Recvmsg(int(fd), data[:], oob[:], unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return err != unix.EAGAIN
	})
	if rerr != nil || err != nil || n == 0 {
		return 1 // the end of the channel: Accept says so
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		r.stop("a hand-over", fmt.Errorf("%d control messages: %v", len(messages), err))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		r.stop("a hand-over", err)
	}
	var text strings.Builder
	now := time.Now().UnixNano()
	for _, fd := range fds {
		if peer, err := unix.Getpeername(fd); err == nil { // else it was reset meanwhile
			if in4, ok := peer.(*unix.SockaddrInet4); ok {
				fmt.Fprintf(&text, "O %d %s %v:%d\n", now, r.pid, netip.AddrFrom4(in4.Addr), in4.Port)
			}
		}
		_ = unix.Close(fd)
	}
	if _, err := r.file.WriteString(text.String()); err != nil {
		r.stop("record", err)
	}
	return len(fds)
}

// answer sends the client's line back with the PID before it.
func (r *recorder) answer(c net.Conn, peer string) {
	defer func() { _ = c.Close() }()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	line = strings.TrimSuffix(line, "\n")
	r.write("R", peer, line)
	if _, err := fmt.Fprintf(c, "%s %s\n", r.pid, line); err != nil {
		return
	}
	r.write("W", peer, line)
}

// write appends one record.
func (r *recorder) write(kind string, rest ...string) {
	fields := append([]string{kind, strconv.FormatInt(time.Now().UnixNano(), 10), r.pid}, rest...)
	if _, err := r.file.WriteString(strings.Join(fields, " ") + "\n"); err != nil {
		r.stop("record", err)
	}
}

// stop ends the process: without its records nothing can be judged.
func (r *recorder) stop(what string, err error) {
	fmt.Fprintf(os.Stderr, "recorder: %s: %v\n", what, err)
	os.Exit(1)
}
