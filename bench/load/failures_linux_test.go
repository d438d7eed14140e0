package load

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// nobody returns an address that is taken by a socket that does not listen.
func nobody(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}).String()
}

// TestNewConnections asserts that each kind is counted exactly, in an open and in
// a closed loop.
func TestNewConnections(t *testing.T) {
	answers := func(s string) func(*testing.T) string {
		return func(t *testing.T) string {
			return tcp(t, func(p *peer) {
				if p.request() {
					p.send(s)
				}
			})
		}
	}
	for _, test := range []struct {
		name  string
		serve func(t *testing.T) string
		group Group
		want  Kind
		text  string
	}{
		{"nobody", nobody, Group{}, Refused, "connection refused"},
		{"no path", func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, Group{}, Refused, "no such file"},
		{"reset", func(t *testing.T) string { return tcp(t, func(p *peer) { p.request(); p.abort() }) }, Group{}, Reset, "reset by peer"},
		{"reset in the answer", func(t *testing.T) string {
			return tcp(t, func(p *peer) { p.request(); p.send(page("hello")[:30]); p.abort() })
		}, Group{}, Reset, "reset by peer"},
		{"eof before", answers(""), Group{}, EOFBeforeAnswer, "closed after"},
		{"eof in head", answers(page("hello")[:30]), Group{}, EOFInAnswer, "after 30 bytes"},
		{"eof in body", answers(page("hello")[:len(page("hello"))-1]), Group{}, EOFInAnswer, "bytes of the answer"},
		{"silent", func(t *testing.T) string { return tcp(t, func(p *peer) { p.request(); p.request() }) }, Group{}, Timeout, "no full answer"},
		{"error page", answers("HTTP/1.1 503 Busy\r\nX-Worker: 4242\r\n\r\n"), Group{}, WrongAnswer, "503 Busy"},
		{"no length", answers("HTTP/1.1 200 OK\r\n\r\nhello"), Group{}, WrongAnswer, "no Content-Length"},
		{"chunked", answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Group{}, WrongAnswer, "chunked"},
		{"too much", answers(page("hello") + "!"), Group{}, WrongAnswer, "1 bytes after"},
		{"not http", answers("SSH-2.0-x\r\n"), Group{}, WrongAnswer, "not HTTP/1"},
		{"other body", answers(page("hello")), Group{Match: regexp.MustCompile("^bye")}, WrongAnswer, "does not match"},
		{"other line", func(t *testing.T) string {
			return tcp(t, func(p *peer) { p.in.ReadString('\n'); p.send("load 0 0\n") })
		}, Group{Proto: Echo}, WrongAnswer, "got"},
		{"late", func(t *testing.T) string {
			return tcp(t, func(p *peer) { p.request(); time.Sleep(120 * time.Millisecond); p.send(page("hello")) })
		}, Group{}, Late, "answered after"},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := test.serve(t)
			open, closed := test.group, test.group
			open.Name, open.Target, open.Count, open.Rate = "open", addr, 12, 500
			closed.Name, closed.Target, closed.Count, closed.Clients = "closed", addr, 8, 4
			p := Plan{Groups: []Group{open, closed}, Examples: 3, Timeout: 20 * time.Second, Late: 15 * time.Second}
			switch test.want {
			case Timeout:
				p.Timeout = 200 * time.Millisecond
			case Late:
				p.Late = 100 * time.Millisecond
			}
			r := do(t, p)
			if diff := cmp.Diff(map[Kind]int{test.want: 20}, r.Failed); diff != "" {
				t.Fatalf("failures (-want +got):\n%s\n%v", diff, r.Err())
			}
			if r.Groups[0].Failures() != 12 || r.Groups[1].Failures() != 8 || r.Reused != 0 || r.Unasked != 0 || r.OK() {
				t.Errorf("open %d, closed %d, reused %d, unasked %d", r.Groups[0].Failures(), r.Groups[1].Failures(), r.Reused, r.Unasked)
			}
			if len(r.Examples) != 3 || !strings.Contains(r.Err().Error(), test.text) || !strings.Contains(r.Err().Error(), string(test.want)) {
				t.Errorf("%d examples in: %v", len(r.Examples), r.Err())
			}
		})
	}
}

// TestKept asserts what the end of a kept connection means, by when it comes. The
// first four connections misbehave after one answer, so that all of it happens inside
// the run.
func TestKept(t *testing.T) {
	var read [5]chan struct{} // closed when the client has read the answer of that connection
	atOnce := Group{Name: "kept", KeepAlive: true, Clients: 4, Count: 200}
	slowly := Group{Name: "kept", KeepAlive: true, Clients: 4, Count: 8, Every: 800 * time.Millisecond,
		Check: func(body []byte) error {
			if n := int(body[0] - '0'); n <= 4 {
				close(read[n])
			}
			return nil
		}}
	for _, test := range []struct {
		name  string
		group Group
		more  string // header of the answer
		then  func(p *peer, n int32)
		want  Figures
	}{
		{"server says close", atOnce, "Connection: close", func(*peer, int32) {}, Figures{Answered: 200, AskedClosed: 4}},
		{"closed when idle", atOnce, "X: y", func(*peer, int32) {}, Figures{Answered: 200, IdleClosed: 4}},
		{"closed after the request came", atOnce, "", func(p *peer, _ int32) { p.request() },
			Figures{Answered: 196, Failed: map[Kind]int{EOFBeforeAnswer: 4}, Reused: 4}},
		{"reset after the request came", atOnce, "", func(p *peer, _ int32) { p.request(); p.abort() },
			Figures{Answered: 196, Failed: map[Kind]int{Reset: 4}, Reused: 4}},
		{"reset when idle", slowly, "", func(p *peer, n int32) { <-read[n]; p.abort() },
			Figures{Answered: 8, Failed: map[Kind]int{Reset: 4}, Reused: 4, Unasked: 4}},
		{"speaks when idle", slowly, "", func(p *peer, n int32) { <-read[n]; p.send("HTTP/1.1 408 Request Timeout\r\n\r\n"); p.request() },
			Figures{Answered: 8, Failed: map[Kind]int{WrongAnswer: 4}, Reused: 4, Unasked: 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var conns atomic.Int32
			for i := range read {
				read[i] = make(chan struct{})
			}
			g := test.group
			g.Target = tcp(t, func(p *peer) {
				n := conns.Add(1)
				if n > 4 {
					for p.request() {
						p.send(page("9"))
					}
					return
				}
				p.request()
				body := strconv.Itoa(int(n))
				if test.more != "" {
					p.cork() // the FIN comes with the answer
					p.send(page(body, test.more))
				} else {
					p.send(page(body))
				}
				test.then(p, n)
			})
			r := do(t, Plan{Duration: time.Minute, Timeout: 20 * time.Second, Late: 15 * time.Second, Examples: 1, Groups: []Group{g}})
			got := Figures{Answered: r.Answered, AskedClosed: r.AskedClosed, IdleClosed: r.IdleClosed, Failed: r.Failed, Reused: r.Reused, Unasked: r.Unasked}
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreUnexported(Figures{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, r.Err())
			}
			if r.Connections != 8 {
				t.Errorf("%d connections, want 4 bad ones and 4 good ones", r.Connections)
			}
			if len(test.want.Failed) == 0 {
				noErr(t, r)
			} else if r.OK() || !strings.Contains(r.Err().Error(), "(worker 4242) (reused connection)") {
				t.Errorf("worker and reuse are missing: %v", r.Err())
			}
		})
	}
}

func TestQueueFull(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	path := filepath.Join(t.TempDir(), "full")
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 2); err != nil {
		t.Fatal(err)
	}
	// Nobody accepts: three fit into a queue of two, as unix(7) counts.
	r := do(t, Plan{Timeout: 200 * time.Millisecond, Groups: []Group{{Target: path, Rate: 1000, Count: 10}}})
	if diff := cmp.Diff(map[Kind]int{Timeout: 3, QueueFull: 7}, r.Failed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
