//go:build linux

package link

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

func pair(t *testing.T, maxFiles int) (raw *fdpass.Conn, c *Conn) {
	t.Helper()
	a, b, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	c = New(b, maxFiles)
	t.Cleanup(func() { _ = a.Close(); _ = c.Close() })
	return a, c
}

// A message that is not understood names its sender's id, and the link goes on.
func TestProtocolErrors(t *testing.T) {
	a, c := pair(t, 0)
	f := fdpass.NewFile(open(t))
	defer f.Close()
	for _, bad := range []struct {
		data  string
		files []*fdpass.File
		id    uint64
		want  error
	}{
		{`{"type":"later","id":4}`, nil, 4, proto.ErrUnknownMessage},
		{`{"type":"drain","id":5,"deadline_ms":"x"}`, nil, 5, proto.ErrBadMessage},
		{`nonsense`, nil, 0, proto.ErrBadMessage},
		{`{"type":"ready"}`, []*fdpass.File{f}, 0, fdpass.ErrTooManyFiles},
	} {
		if err := a.Send([]byte(bad.data), bad.files...); err != nil {
			t.Fatal(err)
		}
		e, files, err := c.Recv()
		if !errors.Is(err, bad.want) || !IsProtocol(err) || e.ID != bad.id || files != nil {
			t.Errorf("%s: %+v %v", bad.data, e, err)
		}
	}
	_ = a.Close()
	if _, _, err := c.Recv(); err != io.EOF || IsProtocol(err) {
		t.Errorf("end: %v", err)
	}
}

// At the descriptor limit a grant comes without its file, and still says which
// request it answers, though a longer message was in the buffer before.
func TestFilesLost(t *testing.T) {
	a, c := pair(t, 1)
	long, _ := proto.Encode(proto.Envelope{Body: proto.Drain{Reason: "a longer message than the next one, whose end stays in the buffer ..........................."}})
	_ = a.Send(long)
	if _, _, err := c.Recv(); err != nil {
		t.Fatal(err)
	}
	f := fdpass.NewFile(open(t))
	defer f.Close()
	data, _ := proto.Encode(proto.Envelope{Re: 6, Body: proto.Grant{Handle: 9, Network: "tcp"}})
	if err := a.Send(data, f); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free := open(t)
	_ = unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	e, files, err := c.Recv()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	g, ok := e.Body.(proto.Grant)
	if !errors.Is(err, fdpass.ErrFilesLost) || files != nil || e.Re != 6 || !ok || g.Handle != 9 {
		t.Fatalf("%+v %v %v", e, files, err)
	}
}

// open returns a descriptor, the lowest free one.
func open(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
