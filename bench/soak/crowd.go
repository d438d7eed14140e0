package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How a connection of a crowd ended.
const (
	answered = "answered"
	reset    = "reset"
	eof      = "eof before an answer"
	refused  = "refused"
	timeout  = "timeout"
	wrong    = "wrong answer"
	other    = "other"
)

// attempt is one connection of a crowd.
type attempt struct {
	id          uint32
	ended       string // one of the above
	pid         int    // who answered
	text        string // of what went wrong
	begun, done time.Duration
}

// source is the client address of an attempt. No two attempts of a run have the
// same, so an address in a worker's records stands for one connection, whatever
// port it had.
func source(id uint32) net.IP { return net.IPv4(127, 1+byte(id>>16), byte(id>>8), byte(id)) }

// idOf is the inverse of source; the text may have a port. False when it is not
// the address of an attempt.
func idOf(address string) (uint32, bool) {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	ip := net.ParseIP(address).To4()
	if ip == nil || ip[0] != 127 || ip[1] == 0 {
		return 0, false
	}
	return uint32(ip[1]-1)<<16 | uint32(ip[2])<<8 | uint32(ip[3]), true
}

// maxAttempts is how many addresses there are: 127.255.255.255 is for broadcast.
const maxAttempts = 254<<16 - 1

// crowd is some clients in a closed loop: each connects from a new address, sends
// a line with the attempt's number, and reads to the end, where one answer must
// have come.
type crowd struct {
	target  string
	timeout time.Duration
	begun   time.Time
	next    atomic.Uint32
	count   atomic.Int64
	byPID   sync.Map // PID: how often it answered, *atomic.Int64
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu  sync.Mutex
	all []attempt
}

// startCrowd begins the attempts; end ends them.
func startCrowd(ctx context.Context, target string, clients int) *crowd {
	c := &crowd{target: target, timeout: 5 * time.Second, begun: time.Now()}
	ctx, c.stop = context.WithCancel(ctx)
	for range clients {
		c.clients.Go(func() { c.client(ctx) })
	}
	return c
}

// end lets each client finish, and returns all attempts.
func (c *crowd) end() []attempt {
	c.stop()
	c.clients.Wait()
	return c.all
}

func (c *crowd) now() time.Duration { return time.Since(c.begun) }

// answeredBy is how often a process answered so far.
func (c *crowd) answeredBy(pid int) int64 {
	if n, ok := c.byPID.Load(pid); ok {
		return n.(*atomic.Int64).Load()
	}
	return 0
}

func (c *crowd) client(ctx context.Context) {
	var own []attempt
	for ctx.Err() == nil {
		id := c.next.Add(1)
		if id > maxAttempts {
			break
		}
		a := attempt{id: id, begun: c.now()}
		a.pid, a.ended, a.text = c.ask(id)
		a.done = c.now()
		own = append(own, a)
		c.count.Add(1)
		if a.ended == answered {
			n, _ := c.byPID.LoadOrStore(a.pid, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, own...)
}

// ask makes one connection. The server closes first, and the reset that ends the
// connection on this side spares both a TIME_WAIT.
func (c *crowd) ask(id uint32) (pid int, ended, text string) {
	deadline := time.Now().Add(c.timeout)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: source(id)}, Deadline: deadline, KeepAlive: -1}
	conn, err := dialer.Dial("tcp", c.target)
	if err != nil {
		return 0, kindOf(err), err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "%d\n", id); err != nil {
		return 0, kindOf(err), err.Error()
	}
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, kindOf(err), err.Error()
	}
	who, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	pid, err = strconv.Atoi(who)
	if err != nil || what != strconv.Itoa(int(id)) {
		return 0, wrong, strconv.Quote(line)
	}
	// What a killed worker had answered may end with a reset instead.
	rest, err := io.ReadAll(in)
	if len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, wrong, fmt.Sprintf("after %q: %q, %v", line, rest, err)
	}
	return pid, answered, ""
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return eof
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reset
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, os.ErrDeadlineExceeded):
		return timeout
	}
	return other
}
