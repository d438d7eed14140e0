package config

import (
	"io/fs"
	"reflect"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// listenerKeys is the schema of a listener as it stands in the file; listener
// makes a Listener of it and keysOf goes back.
type listenerKeys struct {
	Network       string        `key:"network" default:"tcp" values:"tcp tcp4 tcp6 udp udp4 udp6 unix unixpacket unixgram" applies:"restart" doc:"Kind of the socket. 'tcp' with an IPv6 wildcard or no address takes IPv4 too, unless ipv6_only."`
	Address       string        `key:"address" alias:"listen bind host" applies:"restart" doc:"'127.0.0.1:8080', ':8080' (every address), '[::1]:80', 'localhost:80' (resolved when loaded, IPv4 first); for unix a path or '@name' (abstract). 'unix:/path' and the like set the network, too. Needed, unless from is stated."`
	From          string        `key:"from" applies:"restart" doc:"Take a socket that systemd passed instead of binding one: 'systemd:NAME', with NAME from FileDescriptorName= of the socket unit."`
	Policy        string        `key:"policy" default:"shared" values:"shared round_robin least_connections source_hash reuse_port" applies:"restart" doc:"How connections reach the workers. 'shared': all accept from one socket, whoever has time. Where all pools of the listener have protocol 'node' the default is 'round_robin', as in Node. 'reuse_port': a socket for each worker, SO_REUSEPORT of socket(7), among which the kernel chooses: with CAP_BPF the worker that is ready and has the fewest connections, else by a hash; for tcp and udp. The others, not for datagrams: the master accepts and hands each connection to a worker that is free: 'round_robin' in turn, 'least_connections' to the one with the fewest open, 'source_hash' by the client's address."`
	Exclusive     bool          `key:"exclusive" default:"false" for:"stream" applies:"restart" doc:"The socket belongs to one worker; only for one pool with one worker."`
	Linger        time.Duration `key:"linger" default:"30s" applies:"reload" doc:"Without effect on a configured listener, which stays open as long as it is configured; accepted so that a file need not change when the same address is asked for by a worker instead (linger of the pool)."`
	Backlog       int           `key:"backlog" default:"511" min:"1" max:"2147483647" for:"stream" applies:"restart" doc:"Length of the queue of connections not yet accepted, listen(2). The kernel caps it at net.core.somaxconn."`
	IPv6Only      bool          `key:"ipv6_only" default:"false" for:"ip" applies:"restart" doc:"IPV6_V6ONLY: an IPv6 wildcard takes no IPv4."`
	NoDelay       *bool         `key:"no_delay" alias:"tcp_nodelay nodelay" for:"tcp" applies:"restart" doc:"TCP_NODELAY of accepted connections."`
	KeepAlive     *bool         `key:"keep_alive" alias:"so_keepalive keepalive" for:"tcp" applies:"restart" doc:"SO_KEEPALIVE of accepted connections."`
	DeferAccept   time.Duration `key:"defer_accept" default:"0s" max:"1h" for:"tcp" applies:"restart" doc:"TCP_DEFER_ACCEPT: a connection is accepted when its first data arrived, or after this time; whole seconds."`
	FastOpen      int           `key:"fast_open" default:"0" max:"65535" for:"tcp" applies:"restart" doc:"TCP_FASTOPEN: length of its queue; 0 = off."`
	FreeBind      bool          `key:"free_bind" default:"false" for:"ip" applies:"restart" doc:"IP_FREEBIND: bind an address that the machine does not have yet."`
	ReceiveBuffer int           `key:"receive_buffer" unit:"bytes" min:"1" max:"1073741823" applies:"restart" doc:"SO_RCVBUF."`
	SendBuffer    int           `key:"send_buffer" unit:"bytes" min:"1" max:"1073741823" applies:"restart" doc:"SO_SNDBUF."`
	Mode          *fs.FileMode  `key:"mode" for:"path" applies:"restart" doc:"Permission bits of the path. Default: what the umask of the master leaves."`
	Owner         string        `key:"owner" alias:"user" for:"path" applies:"restart" doc:"Owner of the path, by name or number."`
	Group         string        `key:"group" for:"path" applies:"restart" doc:"Group of the path, by name or number."`
	ReadableAll   bool          `key:"readable_all" default:"false" for:"path" applies:"restart" doc:"Everybody may read from the path."`
	WritableAll   bool          `key:"writable_all" default:"false" for:"path" applies:"restart" doc:"Everybody may connect to the path."`
}

// fromKeys are the keys that go with from: all else was decided by systemd.
var fromKeys = map[string]bool{"network": true, "from": true, "policy": true, "exclusive": true, "linger": true}

// applicable reports whether the key of a listener means anything for a socket,
// and else what it is for.
func (f *field) applicable(spec *proto.SocketSpec) (ok bool, kind string) {
	switch f.kind {
	case "tcp":
		return strings.HasPrefix(spec.Network, "tcp"), "tcp"
	case "ip":
		return !proto.IsUnix(spec.Network), "tcp and udp"
	case "stream":
		return !proto.IsDatagram(spec.Network), "tcp, unix and unixpacket"
	case "path":
		return proto.IsUnix(spec.Network) && !strings.HasPrefix(spec.Address, "@"), "sockets with a path"
	}
	return true, ""
}

// listener decodes one listener and resolves its address and users.
func (l *loader) listener(t *table) Listener {
	var k listenerKeys
	t.decode(sectionOf("listener").keys, &k)
	ln := Listener{Name: t.path[1], Policy: k.Policy, Exclusive: k.Exclusive, Linger: k.Linger}
	ln.Spec = proto.SocketSpec{
		Network: k.Network, IPv6Only: k.IPv6Only, FreeBind: k.FreeBind, FastOpen: k.FastOpen, NoDelay: k.NoDelay, KeepAlive: k.KeepAlive,
		ReceiveBuffer: k.ReceiveBuffer, SendBuffer: k.SendBuffer, ReadableAll: k.ReadableAll, WritableAll: k.WritableAll,
		DeferAcceptSeconds: int(k.DeferAccept / time.Second),
	}
	spec := &ln.Spec
	switch {
	case t.bad["network"]:
	case k.From != "":
		l.inherit(t, k.From, spec)
	case t.has("from"):
		t.errorf("from", `must name a socket (write "systemd:NAME")`)
	case k.Address != "":
		l.address(t, k.Address, spec)
	case t.good("address"):
		t.errorf("address", `is missing (write "127.0.0.1:8080", ":8080" or "unix:/path")`)
	}
	if k.DeferAccept%time.Second != 0 {
		t.errorf("defer_accept", "%q is not a whole number of seconds", formatDuration(k.DeferAccept))
	}
	if spec.Inherit == "" && !proto.IsDatagram(spec.Network) {
		spec.Backlog = k.Backlog
	}
	if k.Mode != nil {
		mode := uint32(*k.Mode)
		spec.Mode = &mode
	}
	if k.Owner != "" {
		spec.Owner = l.resolve(t, "owner", k.Owner, userID)
	}
	if k.Group != "" {
		spec.Group = l.resolve(t, "group", k.Group, groupID)
	}
	t.inapplicable(&k, spec)
	t.policy(&k, spec)
	return ln
}

// policy checks that the policy is possible for the kind of socket.
func (t *table) policy(k *listenerKeys, spec *proto.SocketSpec) {
	if t.bad["policy"] || t.bad["network"] || t.bad["address"] {
		return
	}
	switch {
	case k.Policy == proto.PolicyReusePort && proto.IsUnix(spec.Network):
		t.errorf("policy", "%q is not possible for %s (only for tcp and udp)", k.Policy, socketKind(spec))
	case k.Policy == proto.PolicyReusePort && k.Exclusive && t.good("exclusive"):
		t.errorf("policy", "%q gives each worker a socket of its own, and exclusive is for one worker (leave one of them out)", k.Policy)
	case proto.IsDispatched(k.Policy) && proto.IsDatagram(spec.Network):
		t.errorf("policy", "%q is not possible for %s (only for tcp, unix and unixpacket)", k.Policy, socketKind(spec))
	}
}

// inherit reads from = "systemd:NAME".
func (l *loader) inherit(t *table, from string, spec *proto.SocketSpec) {
	name, ok := strings.CutPrefix(from, "systemd:")
	if !ok || name == "" || strings.ContainsAny(name, ": \t\n") {
		t.errorf("from", `%q names no socket (write "systemd:NAME")`, from)
		return
	}
	spec.Inherit = name
}

// inapplicable reports the keys that mean nothing for this kind of socket. A
// default that is written down is left alone.
func (t *table) inapplicable(k *listenerKeys, spec *proto.SocketSpec) {
	v := reflect.ValueOf(k).Elem()
	for i := range sectionOf("listener").keys {
		f := &sectionOf("listener").keys[i]
		if !t.has(f.key) || t.bad[f.key] || t.bad["network"] || t.bad["address"] {
			continue
		}
		if spec.Inherit != "" && !fromKeys[f.key] {
			t.errorf(f.key, "is not possible together with from: systemd made the socket")
			continue
		}
		if ok, kind := f.applicable(spec); !ok && !f.isDefault(v.Field(f.index)) {
			t.errorf(f.key, "is not possible for %s (only for %s)", socketKind(spec), kind)
		}
	}
	if v6only := spec.IPv6Only; v6only && t.good("ipv6_only") && spec.Inherit == "" && !isIPv6(spec) {
		t.errorf("ipv6_only", "is not possible for an IPv4 address")
	}
}

// isDefault reports whether a value is what the key has when it is not stated.
func (f *field) isDefault(v reflect.Value) bool {
	fresh := reflect.New(v.Type()).Elem()
	if f.hasDefault {
		f.codec.decode(f, f.defaultValue(), reflect.Value{}, fresh, func(string, string, ...any) {})
	}
	return reflect.DeepEqual(fresh.Interface(), v.Interface())
}

// keysOf is the inverse of listener. Users are numbers.
func keysOf(ln *Listener) listenerKeys {
	s := &ln.Spec
	k := listenerKeys{
		Network: s.Network, Address: addressText(s), Policy: ln.Policy, Exclusive: ln.Exclusive, Linger: ln.Linger,
		Backlog: s.Backlog, IPv6Only: s.IPv6Only, NoDelay: s.NoDelay, KeepAlive: s.KeepAlive,
		DeferAccept: time.Duration(s.DeferAcceptSeconds) * time.Second, FastOpen: s.FastOpen, FreeBind: s.FreeBind,
		ReceiveBuffer: s.ReceiveBuffer, SendBuffer: s.SendBuffer, ReadableAll: s.ReadableAll, WritableAll: s.WritableAll,
		Owner: number(s.Owner), Group: number(s.Group),
	}
	if s.Inherit != "" {
		k.From, k.Address = "systemd:"+s.Inherit, ""
	}
	if s.Mode != nil {
		mode := fs.FileMode(*s.Mode)
		k.Mode = &mode
	}
	return k
}

// control resolves what stands in [control].
func (l *loader) control(t *table) {
	c := &l.c.Control
	switch {
	case strings.HasPrefix(c.Socket, "@"):
		t.errorf("socket", "must be a path: an abstract name has no permissions")
	case c.Socket != "":
		c.Socket = l.abs(c.Socket)
		pathFits(t, "socket", c.Socket)
	}
	if c.Group != "" {
		l.resolve(t, "group", c.Group, groupID)
	}
}
