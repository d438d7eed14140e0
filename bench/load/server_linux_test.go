package load

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// page is an answer with the given header lines and body.
func page(body string, headers ...string) string {
	s := "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nX-Worker: 4242\r\n"
	for _, h := range headers {
		s += h + "\r\n"
	}
	return s + "\r\n" + body
}

// peer is one accepted connection of a server that misbehaves on purpose.
type peer struct {
	net.Conn
	in *bufio.Reader
}

// request reads a GET up to its empty line; it reports false at the end.
func (p *peer) request() bool {
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == "\r\n" {
			return true
		}
	}
}

func (p *peer) send(s string) { p.Write([]byte(s)) }

// cork holds back what is written until the connection is closed (tcp(7)).
func (p *peer) cork() {
	raw, err := p.Conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
	}
}

// abort closes with RST.
func (p *peer) abort() {
	p.Conn.(*net.TCPConn).SetLinger(0)
	p.Close()
}

// serve runs each on every connection until the test ends and returns the address.
func serve(t *testing.T, network, addr string, each func(p *peer)) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				each(&peer{c, bufio.NewReader(c)})
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func tcp(t *testing.T, each func(p *peer)) string { return serve(t, "tcp", "127.0.0.1:0", each) }

// goServer is a real HTTP server that tells the test's own PID.
func goServer(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
		if ms, err := strconv.Atoi(r.URL.Query().Get("ms")); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		if r.URL.Path == "/big" {
			w.Header().Set("Content-Length", "300000")
			fmt.Fprint(w, strings.Repeat("x", 300_000))
			return
		}
		fmt.Fprintln(w, "pool=web slot=0")
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
