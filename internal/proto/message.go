package proto

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Version is the newest protocol version this code speaks; MinVersion the oldest.
const (
	Version    = 1
	MinVersion = 1
)

// MaxMessage is the size of the largest message, in bytes.
const MaxMessage = 64 << 10

// HandleID names a handle of the master; it is never reused.
type HandleID uint64

// WorkerID names a worker; it is never reused.
type WorkerID uint64

// Message is one of the message types of this package.
type Message interface{ Type() string }

// Envelope is a message with its numbers. ID is set on a request and chosen by
// its sender, unique on the link; Re on an answer, and equal to the request's ID.
type Envelope struct {
	ID, Re uint64
	Body   Message
}

// Features in Hello: what the worker understands beyond the protocol's core.
const (
	FeatureHandover = "handover" // a grant with a channel; without it every grant carries a socket
	FeatureMembers  = "members"  // a grant with several sockets and a page, and Member
	FeatureLook     = "look"     // Look
	FeaturePass     = "pass"     // Channel: what others passed on is taken
)

// States a worker reports in hello.
const (
	StateStarting = "starting"
	StateReady    = "ready"
	StateDraining = "draining"
)

// Messages from the worker.
type (
	// Hello is the first message of a worker, and is said again after a welcome
	// with a new epoch: it then tells the new master what the worker holds. Open
	// requests are sent again behind it with their old ids.
	Hello struct {
		Versions []int      `json:"versions"`
		Client   string     `json:"client,omitempty"` // implementation, for humans: "go 1"
		Epoch    uint64     `json:"epoch,omitempty"`  // last epoch the worker saw; 0 at first
		State    string     `json:"state,omitempty"`
		Holds    []HandleID `json:"holds,omitempty"`
		Counts   *Counts    `json:"counts,omitempty"`
		Features []string   `json:"features,omitempty"` // what the worker can do beyond the protocol's core
	}
	// Listen asks for a socket. The answer is Grant with one file, or Error.
	Listen struct {
		Name        string  `json:"name,omitempty"`    // a configured listener; or else:
		Network     string  `json:"network,omitempty"` // see Networks
		Address     string  `json:"address,omitempty"` // IP literal, "" = every address; or a Unix path, "@name" = abstract
		Port        int     `json:"port,omitempty"`    // 0 = chosen by the kernel, the same for every worker
		Backlog     int     `json:"backlog,omitempty"` // 0 = 511; the first asker's counts
		Exclusive   bool    `json:"exclusive,omitempty"`
		IPv6Only    bool    `json:"ipv6_only,omitempty"`
		Mode        *uint32 `json:"mode,omitempty"` // Unix: permission bits of the path
		ReadableAll bool    `json:"readable_all,omitempty"`
		WritableAll bool    `json:"writable_all,omitempty"`
		Policy      string  `json:"policy,omitempty"` // "" = shared; the first asker's counts
	}
	// Close gives a handle back. It has no answer.
	Close struct {
		Handle HandleID `json:"handle"`
	}
	// Ready says that the worker serves. Saying it again does nothing.
	Ready struct{}
	// Draining says that the worker accepts no more, by its own will or because
	// it was told to.
	Draining struct {
		Reason string `json:"reason,omitempty"`
	}
	// Status is a line for humans, shown by the status command.
	Status struct {
		Text string `json:"text"`
	}
	// Heartbeat says that the worker is alive.
	Heartbeat struct{}
	// Counts are the worker's connection counts: told when they changed (at most
	// a few times a second), and as the answer to Count.
	Counts struct {
		Connections int64  `json:"connections"` // open now
		Accepted    uint64 `json:"accepted"`    // since the worker started
	}
	// Connections asks for the counts of all workers of the pool. The answer is Conns.
	Connections struct {
		TimeoutMS int64 `json:"timeout_ms,omitempty"` // 0 = 1000
	}
	// Pass gives a connection that the worker accepted and has not touched to another
	// worker of the handle. It carries the connection; the answer is Passed, or Error.
	Pass struct {
		Handle    HandleID `json:"handle"`
		Reluctant bool     `json:"reluctant,omitempty"` // it may come back when nobody else takes it
	}
)

// Messages from the master.
type (
	// Welcome answers Hello, and is said unasked by a master that took over.
	Welcome struct {
		Version    int        `json:"version"`
		Epoch      uint64     `json:"epoch"` // grows with each incarnation of the master
		Pool       string     `json:"pool"`
		Slot       int        `json:"slot"`
		Worker     WorkerID   `json:"worker"`
		Generation uint64     `json:"generation"`
		Listeners  []Endpoint `json:"listeners,omitempty"` // the pool's configured listeners
		// MaxConnections is how many connections the worker may have open, 0 for any
		// number: while it has that many it accepts none.
		MaxConnections int64 `json:"max_connections,omitempty"`
	}
	// Grant answers Listen. It carries the socket; with a policy that dispatches the
	// channel on which connections are handed over, and the page for the worker's
	// count of them; with Sockets so many sockets, of which the first is the worker's
	// own, and a page likewise.
	Grant struct {
		Handle  HandleID `json:"handle"`
		Network string   `json:"network"`
		Address string   `json:"address"` // as bound: "127.0.0.1:8080", "[::]:80", "/run/a.sock"
		Backlog int      `json:"backlog"` // in force; may differ from the wish
		Name    string   `json:"name,omitempty"`
		Policy  string   `json:"policy,omitempty"` // "" = the socket is shared: the worker accepts on it
		Sockets int      `json:"sockets,omitempty"`
		Numbers []int    `json:"numbers,omitempty"` // of the sockets, as Member has them
		// NoDelay and KeepAlive are how connections shall be that the worker accepts,
		// where the configuration says it: TCP_NODELAY and SO_KEEPALIVE.
		NoDelay   *bool `json:"no_delay,omitempty"`
		KeepAlive *bool `json:"keep_alive,omitempty"`

		Tuned bool `json:"tuned,omitempty"` // connections come with TCP_NODELAY and keep-alive as they shall be
	}
	// Member brings one more socket of a handle that the worker holds, to accept on
	// as well: the slot that had it is gone.
	Member struct {
		Handle HandleID `json:"handle"`
		Socket int      `json:"socket"`         // which; a number of the handle's
		Gone   bool     `json:"gone,omitempty"` // without a socket: accept no more on that one, its slot is back
	}
	// Look says that connections may wait on a handle without anybody having been
	// woken for them: a worker is gone that may have been.
	Look struct {
		Handle HandleID `json:"handle"`
	}
	// Channel brings a channel and a page, on which connections that others passed on
	// are handed over, beside the handle's own way.
	Channel struct {
		Handle HandleID `json:"handle"`
	}
	// Passed answers Pass: the connection is the worker's no more.
	Passed struct{}
	// Error answers any request that failed, or a message that is not understood.
	Error struct {
		Code    string `json:"code"`            // an errno's name, or one of the codes below
		Errno   int    `json:"errno,omitempty"` // positive, as Linux numbers it; 0 when there is none
		Message string `json:"message"`
	}
	// Count asks the worker for its Counts.
	Count struct{}
	// Conns answers Connections.
	Conns struct {
		Total   int64         `json:"total"`
		Workers []WorkerConns `json:"workers"`
		Missing []WorkerID    `json:"missing,omitempty"` // did not answer in time
	}
	// Drain tells the worker to accept no more, finish what is open and exit.
	Drain struct {
		DeadlineMS int64  `json:"deadline_ms"` // the worker is ended by force after this
		Reason     string `json:"reason,omitempty"`
	}
	// Ping asks for a Pong, to see that the worker's loop runs.
	Ping struct{}
	// Pong answers Ping.
	Pong struct{}
)

// Endpoint is a configured listener in Welcome.
type Endpoint struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	Address string `json:"address"`
}

// WorkerConns is one worker's part of Conns.
type WorkerConns struct {
	Worker      WorkerID `json:"worker"`
	Slot        int      `json:"slot"`
	Connections int64    `json:"connections"`
}

// Codes of Error that are no errno.
const (
	CodeUnknownMessage = "UNKNOWN_MESSAGE" // the type is not known
	CodeBadMessage     = "BAD_MESSAGE"     // not JSON, or a field of the wrong type
	CodeVersion        = "VERSION"         // no version in common
	CodeState          = "STATE"           // not allowed now: before hello, or while draining
)

func (Hello) Type() string       { return "hello" }
func (Listen) Type() string      { return "listen" }
func (Close) Type() string       { return "close" }
func (Ready) Type() string       { return "ready" }
func (Draining) Type() string    { return "draining" }
func (Status) Type() string      { return "status" }
func (Heartbeat) Type() string   { return "heartbeat" }
func (Counts) Type() string      { return "counts" }
func (Connections) Type() string { return "connections" }
func (Welcome) Type() string     { return "welcome" }
func (Grant) Type() string       { return "grant" }
func (Error) Type() string       { return "error" }
func (Count) Type() string       { return "count" }
func (Conns) Type() string       { return "conns" }
func (Drain) Type() string       { return "drain" }
func (Ping) Type() string        { return "ping" }
func (Pong) Type() string        { return "pong" }
func (Member) Type() string      { return "member" }
func (Look) Type() string        { return "look" }
func (Pass) Type() string        { return "pass" }
func (Passed) Type() string      { return "passed" }
func (Channel) Type() string     { return "channel" }

// decoders holds every message type; Encode and Decode know no other list.
var decoders = map[string]func([]byte) (Message, error){
	Hello{}.Type():       decode[Hello],
	Listen{}.Type():      decode[Listen],
	Close{}.Type():       decode[Close],
	Ready{}.Type():       decode[Ready],
	Draining{}.Type():    decode[Draining],
	Status{}.Type():      decode[Status],
	Heartbeat{}.Type():   decode[Heartbeat],
	Counts{}.Type():      decode[Counts],
	Connections{}.Type(): decode[Connections],
	Welcome{}.Type():     decode[Welcome],
	Grant{}.Type():       decode[Grant],
	Error{}.Type():       decode[Error],
	Count{}.Type():       decode[Count],
	Conns{}.Type():       decode[Conns],
	Drain{}.Type():       decode[Drain],
	Ping{}.Type():        decode[Ping],
	Pong{}.Type():        decode[Pong],
	Member{}.Type():      decode[Member],
	Look{}.Type():        decode[Look],
	Pass{}.Type():        decode[Pass],
	Passed{}.Type():      decode[Passed],
	Channel{}.Type():     decode[Channel],
}

func decode[M Message](data []byte) (Message, error) {
	var m M
	err := json.Unmarshal(data, &m)
	return m, err
}

type header struct {
	Type string `json:"type"`
	ID   uint64 `json:"id,omitempty"`
	Re   uint64 `json:"re,omitempty"`
}

var (
	// ErrUnknownMessage means a well-formed message of a type that is not known.
	// The Envelope returned with it has the sender's ID, for an Error answer.
	ErrUnknownMessage = errors.New("unknown message")
	// ErrBadMessage means bytes that are no message.
	ErrBadMessage = errors.New("malformed message")
	// ErrTooLarge means a message over MaxMessage.
	ErrTooLarge = errors.New("message too large")
)

// Encode returns the one JSON object that stands for e: the members type, id and
// re, then those of the body. Errors: ErrTooLarge.
func Encode(e Envelope) ([]byte, error) {
	head, err := json.Marshal(header{Type: e.Body.Type(), ID: e.ID, Re: e.Re})
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(e.Body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", e.Body.Type(), err)
	}
	if len(body) > len("{}") {
		head = append(append(head[:len(head)-1], ','), body[1:]...)
	}
	if len(head) > MaxMessage {
		return nil, fmt.Errorf("encode %s: %w: %d bytes", e.Body.Type(), ErrTooLarge, len(head))
	}
	return head, nil
}

// Decode is the inverse of Encode. Members that a message does not define are
// ignored, so that a later version may add some. Errors: ErrTooLarge,
// ErrBadMessage, ErrUnknownMessage; with the last two the Envelope holds the ID
// when it could be read.
func Decode(data []byte) (Envelope, error) {
	if len(data) > MaxMessage {
		return Envelope{}, ErrTooLarge
	}
	var h header
	if err := json.Unmarshal(data, &h); err != nil {
		return Envelope{ID: h.ID}, fmt.Errorf("%w: %v", ErrBadMessage, err)
	}
	e := Envelope{ID: h.ID, Re: h.Re}
	dec, ok := decoders[h.Type]
	if !ok {
		return e, fmt.Errorf("%w: %.40q", ErrUnknownMessage, h.Type)
	}
	m, err := dec(data)
	if err != nil {
		return e, fmt.Errorf("%w: %s: %v", ErrBadMessage, h.Type, err)
	}
	e.Body = m
	return e, nil
}
