// Saboteur is a worker that serves as any other, and harms the sockets that it
// shares with them: at each SIGUSR1, or with "at-start" before it is ready.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/worker"
)

// usage: saboteur DEED [at-start]
func main() {
	w, err := worker.Join(context.Background())
	if err != nil {
		os.Exit(2)
	}
	var listeners []net.Listener
	for _, e := range w.Listeners() {
		l, err := w.ListenName(context.Background(), e.Name)
		if err != nil {
			os.Exit(2)
		}
		listeners = append(listeners, l)
	}
	deed := func() {
		for _, l := range listeners {
			raw, err := l.(syscall.Conn).SyscallConn()
			if err == nil {
				_ = raw.Control(func(fd uintptr) { harm(os.Args[1], int(fd)) })
			}
		}
	}
	if len(os.Args) > 2 {
		deed()
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			deed()
		}
	}()
	me := strconv.Itoa(os.Getpid())
	answer := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-Worker", me)
		fmt.Fprintln(rw, me)
	})
	if err := w.Serve(context.Background(), &http.Server{Handler: answer}, listeners...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// elsewhere is where a listening socket is connected to.
var elsewhere, _ = net.Listen("tcp", "127.0.0.1:0")

func harm(deed string, fd int) {
	flags := func(set, clear int) {
		if n, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, n&^clear|set)
		}
	}
	switch deed {
	case "shut-rd":
		_ = unix.Shutdown(fd, unix.SHUT_RD)
	case "shut-rdwr":
		begun := time.Now()
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		for on := 0; on == 0 && time.Since(begun) < time.Second; {
			time.Sleep(20 * time.Microsecond)
			on, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		}
		fmt.Println("mended after", time.Since(begun).Round(time.Microsecond)) // a Unix socket says so in any case
	case "shut-for-ever":
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
	case "move": // of a port that the kernel chose: to another one
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		_ = unix.Listen(fd, 511)
	case "connect":
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		_ = unix.Connect(fd, &unix.SockaddrInet4{Port: elsewhere.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}})
	case "backlog":
		_ = unix.Listen(fd, 7)
	case "blocking":
		flags(0, unix.O_NONBLOCK)
	case "signals":
		flags(unix.O_ASYNC, 0)
	}
}
