package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/link"
	"github.com/f72e338e/supervisord/internal/proto"
)

// badly is a link that asks for what is refused.
type badly struct {
	*link.Conn
	id uint64
}

// ask returns the answer to a request.
func (b *badly) ask(m proto.Message, files ...*fdpass.File) (proto.Message, []*fdpass.File, error) {
	b.id++
	if err := b.Send(proto.Envelope{ID: b.id, Body: m}, files...); err != nil {
		return nil, nil, err
	}
	for {
		e, got, err := b.Recv()
		if err != nil || e.Re == b.id {
			return e.Body, got, err
		}
		fdpass.CloseAll(got)
	}
}

func (b *badly) refused(what, code string, m proto.Message, files ...*fdpass.File) {
	a, _, err := b.ask(m, files...)
	if e, ok := a.(proto.Error); !ok || e.Code != code || err != nil {
		fmt.Printf("wrong: %s: want %s, got %#v, %v\n", what, code, a, err)
	}
}

func bad(context.Context) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGUSR1)
	fd, err := strconv.Atoi(os.Getenv("SUPERVISORD_FD"))
	if err != nil {
		return err
	}
	c, err := fdpass.NewConn(fdpass.NewFile(fd))
	if err != nil {
		return err
	}
	b := &badly{Conn: link.New(c, fdpass.MaxFiles)}
	tcp, listening, err := connection()
	if err != nil {
		return err
	}
	b.refused("before hello", proto.CodeState, proto.Pass{Handle: 1}, tcp)
	if _, _, err := b.ask(proto.Hello{Versions: []int{1}, Features: []string{proto.FeaturePass}}); err != nil {
		return err
	}
	b.refused("not held", "EBADF", proto.Pass{Handle: 1}, tcp)
	b.refused("no such handle", "EBADF", proto.Pass{Handle: 99}, tcp)
	a, got, err := b.ask(proto.Listen{Name: "web"})
	g, ok := a.(proto.Grant)
	if err != nil || !ok {
		return fmt.Errorf("%#v %w", a, err)
	}
	if err := b.Send(proto.Envelope{Body: proto.Ready{}}); err != nil {
		return err
	}
	pass := proto.Pass{Handle: g.Handle}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	udp, err2 := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	null, err3 := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	round := func() {
		b.refused("no descriptor", "EINVAL", pass)
		b.refused("no socket", "EINVAL", pass, fdpass.NewFile(null))
		b.refused("a datagram socket", "EINVAL", pass, fdpass.NewFile(udp))
		b.refused("a Unix socket", "EINVAL", pass, fdpass.NewFile(pair[0]))
		b.refused("a socket that listens", "EINVAL", pass, listening)
		b.refused("the listener", "EINVAL", pass, got[0])
		b.refused("no such handle", "EBADF", proto.Pass{Handle: 99}, tcp)
		b.refused("nobody else", "ENOENT", pass, tcp)
	}
	for range 5 {
		b.refused("two descriptors", proto.CodeBadMessage, pass, tcp, tcp)
		b.refused("a descriptor with another message", proto.CodeBadMessage, proto.Connections{}, tcp)
	}
	round()
	fmt.Println("first round")
	<-again
	for range 50 {
		round()
	}
	fmt.Println("last round")
	<-again
	return nil
}

// connection returns a TCP connection and a socket that listens.
func connection() (conn, listening *fdpass.File, err error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	err = errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1))
	if err != nil {
		return nil, nil, err
	}
	to, err := unix.Getsockname(l)
	if err == nil {
		err = unix.Connect(c, to)
	}
	return fdpass.NewFile(c), fdpass.NewFile(l), err
}
