package nodeipc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Message is what a worker says: one of the types below.
type Message interface{ message() }

// Messages from the worker. A Seq is what an answer names as its ack.
type (
	// Online is the first message, before the program runs.
	Online struct{ Seq int64 }
	// Query asks for a socket. The answer is Granted, Shared or Refused.
	Query struct {
		Seq int64
		Place
		Backlog     int             // 0: not said, or not a number above 0
		ReadableAll bool            // Unix: permissions of the path
		WritableAll bool            //
		Data        json.RawMessage // of TLS servers; nil: null. Every worker is to get the first one's
	}
	// Listening says that a server listens, with the port that it got.
	Listening struct {
		Seq int64
		Place
	}
	// Answer is the worker's to a connection that was handed over.
	Answer struct {
		Ack      int64
		Accepted bool
	}
	// Closed gives a socket back.
	Closed struct{ Key string }
	// Leaving says that the worker goes by its own will, and waits for Acknowledged.
	Leaving struct{ Seq int64 }
	// HandleAck answers a line with a descriptor: it has come.
	HandleAck struct{}
	// HandleNack answers one whose descriptor has not come.
	HandleNack struct{}
	// Handle is a line with a descriptor of the worker's own, which waits for one of
	// the lines HandleAck and HandleNack.
	Handle struct{ Kind string }
	// User is anything that the program says itself (process.send): the line that was
	// parsed, which may be long, and not a copy.
	User struct{ Value json.RawMessage }
	// Internal is a message of Node that a master need not know.
	Internal struct{ Cmd, Act string }
)

func (Online) message()     {}
func (Query) message()      {}
func (Listening) message()  {}
func (Answer) message()     {}
func (Closed) message()     {}
func (Leaving) message()    {}
func (HandleAck) message()  {}
func (HandleNack) message() {}
func (Handle) message()     {}
func (User) message()       {}
func (Internal) message()   {}

// Place is where a server listens, or wants to.
type Place struct {
	Network string // "tcp", "unix", "udp4" or "udp6"; "" for a descriptor
	Address string // IP literal, "" = no host was named; absolute path
	Port    int
	// Index tells the i-th server of a worker at a place from the others. Only for
	// port 0 it is part of what is meant.
	Index    int
	IPv6Only bool
	FD       int // a descriptor of the primary's that is to be listened on; -1: none
}

// ErrBadLine means a line that is not JSON, or a message of the cluster whose members
// make no sense.
var ErrBadLine = errors.New("not a message")

// What begins the cmd of Node's own messages; those of programs do not, or are just
// this.
const prefix = "NODE_"

// Fast paths of the two lines that come with every connection.
var (
	ackLine    = []byte(`{"cmd":"NODE_HANDLE_ACK"}`)
	answerHead = []byte(`{"cmd":"NODE_CLUSTER","ack":`)
	answerYes  = []byte(`,"accepted":true,"seq":`)
)

// IsAnswer reports whether a line of Node's begins like an Answer.
func IsAnswer(line []byte) bool { return bytes.HasPrefix(line, answerHead) }

// Parse reads one line. Error: ErrBadLine.
func Parse(line []byte) (Message, error) {
	if bytes.Equal(line, ackLine) {
		return HandleAck{}, nil
	}
	if m, ok := parseAnswer(line); ok {
		return m, nil
	}
	// A struct would take members whatever their case.
	var m wire
	if err := json.Unmarshal(line, &m); err != nil || m == nil {
		if json.Valid(line) { // any JSON value is a message of a program
			return User{line}, nil
		}
		return nil, fmt.Errorf("%w: %.60q", ErrBadLine, line)
	}
	switch cmd := m.text("cmd"); {
	case len(cmd) <= len(prefix) || !strings.HasPrefix(cmd, prefix):
		return User{line}, nil
	case cmd == "NODE_CLUSTER":
		return m.cluster()
	case cmd == "NODE_HANDLE_ACK":
		return HandleAck{}, nil
	case cmd == "NODE_HANDLE_NACK":
		return HandleNack{}, nil
	case cmd == "NODE_HANDLE":
		return Handle{m.text("type")}, nil
	default:
		return Internal{Cmd: cmd}, nil
	}
}

// parseAnswer reads {"cmd":"NODE_CLUSTER","ack":N,"accepted":true,"seq":M}.
func parseAnswer(line []byte) (a Answer, ok bool) {
	rest, ok := bytes.CutPrefix(line, answerHead)
	if !ok {
		return a, false
	}
	i := 0
	for i < len(rest) && i < 18 && rest[i] >= '0' && rest[i] <= '9' {
		a.Ack = 10*a.Ack + int64(rest[i]-'0')
		i++
	}
	if i == 0 || i > 1 && rest[0] == '0' {
		return a, false
	}
	rest, ok = bytes.CutPrefix(rest[i:], answerYes)
	if !ok || len(rest) < 2 || len(rest) > 18 || rest[len(rest)-1] != '}' {
		return a, false
	}
	for _, c := range rest[:len(rest)-1] {
		if c < '0' || c > '9' {
			return a, false
		}
	}
	a.Accepted = true
	return a, true
}

// wire is a message as it comes. The types of its members vary with how the program
// said it, so each is judged by itself.
type wire map[string]json.RawMessage

// text is a member that is a string, "" for any other.
func (m wire) text(name string) string {
	var s string
	_ = json.Unmarshal(m[name], &s)
	return s
}

func (m wire) cluster() (Message, error) {
	act := m.text("act")
	seq, ok := number(m["seq"])
	if !ok {
		return nil, fmt.Errorf("%w: %.40q without a number", ErrBadLine, act)
	}
	if m["ack"] != nil {
		ack, ok := number(m["ack"])
		if !ok {
			return nil, fmt.Errorf("%w: an answer to %.20q", ErrBadLine, m["ack"])
		}
		return Answer{ack, isTrue(m["accepted"])}, nil
	}
	switch act {
	case "online":
		return Online{seq}, nil
	case "exitedAfterDisconnect":
		return Leaving{seq}, nil
	case "close":
		return Closed{m.text("key")}, nil
	case "queryServer":
		p, err := m.place()
		if err != nil {
			return nil, err
		}
		q := Query{Seq: seq, Place: p, ReadableAll: isTrue(m["readableAll"]), WritableAll: isTrue(m["writableAll"])}
		if n, ok := number(m["backlog"]); ok && n > 0 {
			q.Backlog = int(min(n, math.MaxInt32))
		}
		if !isNull(m["data"]) {
			q.Data = bytes.Clone(m["data"])
		}
		return q, nil
	case "listening":
		p, err := m.place()
		if err != nil {
			return nil, err
		}
		return Listening{seq, p}, nil
	}
	return Internal{"NODE_CLUSTER", act}, nil
}

// Flags of a query.
const ipv6Only = 1 // UV_TCP_IPV6ONLY, UV_UDP_IPV6ONLY

func (m wire) place() (Place, error) {
	p := Place{FD: -1}
	if fd, ok := number(m["fd"]); ok && fd >= 0 {
		p.FD = int(min(fd, math.MaxInt32))
		if port, ok := number(m["port"]); ok && port > 0 && port <= 65535 {
			p.Port = int(port)
		}
		return p, nil
	}
	bad := func(member string) (Place, error) {
		return Place{}, fmt.Errorf("%w: %s with %s %.40q", ErrBadLine, m.text("act"), member, m[member])
	}
	switch kind, _ := number(m["addressType"]); {
	case m.text("addressType") == "udp4" || m.text("addressType") == "udp6":
		p.Network = m.text("addressType")
	case kind == 4 || kind == 6:
		p.Network = "tcp"
	case kind == -1:
		p.Network = "unix"
	default:
		return bad("addressType")
	}
	if raw := m["address"]; raw != nil && json.Unmarshal(raw, &p.Address) != nil { // null leaves it empty
		return bad("address")
	}
	if p.Network == "unix" {
		if p.Address == "" {
			return bad("address")
		}
		return p, nil
	}
	port, ok := number(m["port"])
	if !ok && !isNull(m["port"]) || port < 0 || port > 65535 {
		return bad("port")
	}
	p.Port = int(port)
	if n, ok := number(m["index"]); ok && n >= 0 && n < 1<<20 {
		p.Index = int(n)
	}
	flags, _ := number(m["flags"])
	p.IPv6Only = flags&ipv6Only != 0
	return p, nil
}

func isNull(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }
func isTrue(raw json.RawMessage) bool { return string(raw) == "true" }

// number reads a whole number, which may be a string of digits: a port that a program
// has from its environment is one.
func number(raw json.RawMessage) (int64, bool) {
	if len(raw) > 1 && raw[0] == '"' {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			return 0, false
		}
		raw = json.RawMessage(strings.TrimSpace(text))
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}
