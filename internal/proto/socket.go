package proto

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// DefaultBacklog is Node's default for net.Server.listen.
const DefaultBacklog = 511

// Networks lists the networks a socket can be asked for, with Go's names. The
// reference's pipe is "unix"; seqpacket is "unixpacket", datagram "unixgram".
var Networks = []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixpacket", "unixgram"}

// Policies lists how connections of a handle can reach workers.
var Policies = []string{PolicyShared, PolicyRoundRobin, PolicyLeastConnections, PolicySourceHash, PolicyReusePort}

// The policies.
const (
	PolicyShared           = "shared"            // every holder accepts from the one socket
	PolicyRoundRobin       = "round_robin"       // the master hands them over in turn
	PolicyLeastConnections = "least_connections" // to the holder with the fewest open
	PolicySourceHash       = "source_hash"       // by client address
	PolicyReusePort        = "reuse_port"        // a socket for each slot, SO_REUSEPORT in socket(7)
)

// IsDispatched reports whether the master accepts under the policy.
func IsDispatched(policy string) bool {
	return policy != "" && policy != PolicyShared && policy != PolicyReusePort
}

// IsUnix reports whether the network's addresses are paths.
func IsUnix(network string) bool { return strings.HasPrefix(network, "unix") }

// IsDatagram reports whether the network has no connections to accept.
func IsDatagram(network string) bool {
	return strings.HasPrefix(network, "udp") || network == "unixgram"
}

// SocketSpec says which socket to make and how. The zero value of every option
// means the kernel's or the reference's default. It is what was asked for; what
// came of it stands in Bound.
type SocketSpec struct {
	Network   string `json:"network"`
	Address   string `json:"address,omitempty"` // IP literal, "" = every address; Unix path, "@name" = abstract
	Port      int    `json:"port,omitempty"`
	Backlog   int    `json:"backlog,omitempty"` // 0 = DefaultBacklog
	IPv6Only  bool   `json:"ipv6_only,omitempty"`
	ReusePort bool   `json:"reuse_port,omitempty"`
	FreeBind  bool   `json:"free_bind,omitempty"`  // IP_FREEBIND, ip(7)
	FastOpen  int    `json:"fast_open,omitempty"`  // TCP_FASTOPEN queue length, tcp(7)
	NoDelay   *bool  `json:"no_delay,omitempty"`   // TCP_NODELAY, inherited by accepted sockets
	KeepAlive *bool  `json:"keep_alive,omitempty"` // SO_KEEPALIVE, inherited by accepted sockets

	DeferAcceptSeconds int `json:"defer_accept_seconds,omitempty"` // TCP_DEFER_ACCEPT, tcp(7)
	ReceiveBuffer      int `json:"receive_buffer,omitempty"`       // SO_RCVBUF, bytes
	SendBuffer         int `json:"send_buffer,omitempty"`          // SO_SNDBUF, bytes

	// Unix paths. Owner and Group are numbers; nil leaves the creator's.
	Mode        *uint32 `json:"mode,omitempty"`
	Owner       *int    `json:"owner,omitempty"`
	Group       *int    `json:"group,omitempty"`
	ReadableAll bool    `json:"readable_all,omitempty"`
	WritableAll bool    `json:"writable_all,omitempty"`

	// Inherit names a socket that systemd passed; it is used instead of a new one.
	Inherit string `json:"inherit,omitempty"`
	// Confine is set for a Unix path that a worker named.
	Confine *Confine `json:"confine,omitempty"`
}

// Confine says on whose behalf a Unix path is created: below which directory,
// without following a link, and as which user.
type Confine struct {
	Directory string `json:"directory"`
	UID       int    `json:"uid"`
	GID       int    `json:"gid"`
}

// Bound says what a SocketSpec became.
type Bound struct {
	Address string `json:"address"` // "127.0.0.1:8080", "[::]:80", "/run/a.sock", "@name"
	Port    int    `json:"port,omitempty"`
	Backlog int    `json:"backlog,omitempty"` // as the kernel capped it; 0 for datagrams
	// Device and Inode identify a Unix path that we created, 0 otherwise.
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
	// Inherited is set when the socket came from systemd: its options are not ours.
	Inherited bool `json:"inherited,omitempty"`
	// Blocking is set when its holders may have it without O_NONBLOCK, as programs expect
	// that take sockets from systemd.
	Blocking bool `json:"blocking,omitempty"`
}

// Key is what a handle is found by: what was asked for, not what came of it.
type Key struct {
	Network string `json:"network"`
	Address string `json:"address"`
	Port    int    `json:"port"`
	Index   int    `json:"index"` // counts a worker's listens on port 0
	Name    string `json:"name,omitempty"`
	Owner   string `json:"owner,omitempty"` // "pool/slot" of an exclusive handle
}

// Place is the part of a Key that two requests must not both have unless they
// share: network family, address, port and index.
func (k Key) Place() Key {
	return Key{Network: k.Network, Address: k.Address, Port: k.Port, Index: k.Index}
}

// String formats the key for humans: "tcp 127.0.0.1:80", "tcp *:80",
// "tcp 127.0.0.1:0#1", "unix /run/a.sock (exclusive to web/0)".
func (k Key) String() string {
	var b strings.Builder
	b.WriteString(k.Network)
	b.WriteByte(' ')
	switch {
	case IsUnix(k.Network):
		b.WriteString(k.Address)
	default:
		b.WriteString(HostPort(k.Address, k.Port))
	}
	if k.Port == 0 && k.Index > 0 {
		b.WriteString("#" + strconv.Itoa(k.Index))
	}
	if k.Owner != "" {
		b.WriteString(" (exclusive to " + k.Owner + ")")
	}
	return b.String()
}

// HostPort joins an address of a SocketSpec and a port as humans write it; the
// empty address is "*".
func HostPort(address string, port int) string {
	if address == "" {
		address = "*"
	}
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return address + ":" + strconv.Itoa(port)
}

// IsWildcard reports whether an address of a SocketSpec means every address.
func IsWildcard(address string) bool {
	if address == "" {
		return true
	}
	a, err := netip.ParseAddr(address)
	return err == nil && a.IsUnspecified()
}

// KnownNetwork reports whether network is one of Networks.
func KnownNetwork(network string) bool { return slices.Contains(Networks, network) }
