package core

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/f72e338e/supervisord/internal/proto"
)

// keyOf returns the key that a configured listener is found by.
func keyOf(s proto.SocketSpec) proto.Key {
	network, address := canonical(s.Network, s.Address, "/")
	return proto.Key{Network: network, Address: address, Port: s.Port}
}

// canonical brings an address to the one spelling that keys use: tcp4 and tcp6
// only matter for the wildcard, IPs as netip writes them, paths clean and absolute.
func canonical(network, address, directory string) (string, string) {
	if proto.IsUnix(network) {
		if strings.HasPrefix(address, "@") {
			return network, address
		}
		if !path.IsAbs(address) {
			address = path.Join(directory, address)
		}
		return network, path.Clean(address)
	}
	base := network[:3]
	if address == "" {
		switch network[3:] {
		case "4":
			address = "0.0.0.0"
		case "6":
			return base + "6", "::"
		}
		return base, address
	}
	if a, err := netip.ParseAddr(address); err == nil {
		address = a.Unmap().String()
	}
	return base, address
}

// find resolves a request: an existing handle that the worker may have, the key
// for a new one, or why not.
func (c *Core) find(w *Worker, m proto.Listen) (*Handle, proto.Key, *proto.Error) {
	g := c.pools[w.Pool].generation(w.Gen)
	if m.Name != "" {
		if i := slices.Index(g.Spec.Listeners, m.Name); i >= 0 && i < len(g.Handles) && c.handles[g.Handles[i]] != nil {
			h := c.handles[g.Handles[i]]
			return h, h.Key, c.mayHold(w, h, m.Exclusive)
		}
		return nil, proto.Key{}, errorf(syscall.ENOENT, "pool %s has no listener %q (its listeners: %s)", w.Pool, m.Name, strings.Join(g.Spec.Listeners, ", "))
	}
	if !proto.KnownNetwork(m.Network) {
		return nil, proto.Key{}, errorf(syscall.EINVAL, "unknown network %q (%s)", m.Network, strings.Join(proto.Networks, ", "))
	}
	if m.Policy != "" && !slices.Contains(proto.Policies, m.Policy) {
		return nil, proto.Key{}, errorf(syscall.EINVAL, "unknown policy %q (%s)", m.Policy, strings.Join(proto.Policies, ", "))
	}
	if m.Policy == proto.PolicyReusePort && (proto.IsUnix(m.Network) || m.Exclusive) {
		return nil, proto.Key{}, errorf(syscall.EINVAL, "policy reuse_port is for TCP and UDP sockets that are not exclusive")
	}
	if err := checkAddress(m); err != nil {
		return nil, proto.Key{}, err
	}
	network, address := canonical(m.Network, m.Address, g.Spec.Confine.Directory)
	key := proto.Key{Network: network, Address: address, Port: m.Port}
	if m.Exclusive {
		key.Owner = w.owner()
	}
	if anyPort(key) {
		key.Index = c.freeIndex(w, key)
	}
	h := c.at(key)
	if h == nil || !slices.Contains(g.Handles, h.ID) { // a pool's own listeners need no bind_allow; another's do
		if err := c.allowed(g, key); err != nil {
			return nil, key, err
		}
	}
	if h != nil && g.Spec.Protocol == ProtocolNode && (slices.Contains(w.Holds, h.ID) || slices.Contains(w.Waits, h.ID)) {
		// Each server of a Node worker is one of its own (nodejs/node#60141).
		return nil, key, errorf(syscall.EADDRINUSE, "this worker listens on %s already", key)
	}
	if h != nil {
		return h, key, c.mayHold(w, h, m.Exclusive)
	}
	if err := c.mayHaveMore(w); err != nil {
		return nil, key, err
	}
	if m.Exclusive && proto.IsDatagram(network) {
		return nil, key, errorf(syscall.EINVAL, "a datagram socket cannot be exclusive")
	}
	return nil, key, nil
}

// maxHolds is how many handles one worker may have.
const maxHolds = 256

// mayHaveMore keeps workers from using up the master's descriptors, which it needs
// to start the others and to be asked.
func (c *Core) mayHaveMore(w *Worker) *proto.Error {
	if n := len(w.Holds) + len(w.Waits); n >= maxHolds {
		return errorf(syscall.EMFILE, "this worker has %d sockets (close some: one worker may have %d)", n, maxHolds)
	}
	if n := len(c.handles) - len(c.m.Listeners); c.m.MaxHandles > 0 && n >= c.m.MaxHandles {
		return errorf(syscall.EMFILE, "the workers have asked for %d sockets (raise the master's limit of open files: a quarter of it is for them)", n)
	}
	return nil
}

// nameOf returns what the generation calls a configured listener, "" if it is not
// one of its own. A reload may have given the handle another name since.
func (g *Generation) nameOf(id proto.HandleID) string {
	if i := slices.Index(g.Handles, id); i >= 0 && i < len(g.Spec.Listeners) {
		return g.Spec.Listeners[i]
	}
	return ""
}

func checkAddress(m proto.Listen) *proto.Error {
	switch {
	case proto.IsUnix(m.Network) && m.Address == "":
		return errorf(syscall.EINVAL, "a Unix socket needs a path")
	case proto.IsUnix(m.Network):
		return nil
	case m.Port < 0 || m.Port > 65535:
		return errorf(syscall.EINVAL, "port %d is out of range (0 to 65535)", m.Port)
	}
	if _, err := netip.ParseAddr(m.Address); m.Address != "" && err != nil {
		return errorf(syscall.EINVAL, "%q is not an IP address (names are resolved by the worker)", m.Address)
	}
	return nil
}

func (w *Worker) owner() string { return w.Pool + "/" + strconv.Itoa(w.Slot) }

// at finds the handle of a place. An empty host and the wildcards mean the same
// as a configured wildcard listener of that port.
func (c *Core) at(key proto.Key) *Handle {
	for _, id := range c.places[key.Place()] {
		if h := c.handles[id]; isMeant(h, key) {
			return h
		}
	}
	if key.Port == 0 || proto.IsUnix(key.Network) || !proto.IsWildcard(key.Address) {
		return nil
	}
	for _, address := range []string{"", "::", "0.0.0.0"} {
		for _, network := range []string{key.Network[:3], key.Network[:3] + "6"} {
			for _, id := range c.places[proto.Key{Network: network, Address: address, Port: key.Port}] {
				if h := c.handles[id]; h.Configured {
					return h
				}
			}
		}
	}
	return nil
}

// anyPort reports whether the kernel chooses the port.
func anyPort(key proto.Key) bool { return key.Port == 0 && !proto.IsUnix(key.Network) }

// isMeant reports whether a handle at the place of a key is the one of the key.
// Ports that the kernel chooses are never in each other's way, so those of each
// owner are counted apart.
func isMeant(h *Handle, key proto.Key) bool { return !anyPort(key) || h.Owner == key.Owner }

// freeIndex is the lowest index of a port-0 key that the worker does not use, so
// that its i-th open one is every other worker's i-th.
func (c *Core) freeIndex(w *Worker, key proto.Key) int {
	for {
		used := func(id proto.HandleID) bool {
			h := c.handles[id]
			return h.Key.Place() == key.Place() && isMeant(h, key)
		}
		if !slices.ContainsFunc(w.Holds, used) && !slices.ContainsFunc(w.Waits, used) {
			return key.Index
		}
		key.Index++
	}
}

// mayHold says whether the worker can be granted an existing handle.
func (c *Core) mayHold(w *Worker, h *Handle, exclusive bool) *proto.Error {
	switch {
	case slices.Contains(w.Holds, h.ID) || slices.Contains(w.Waits, h.ID):
		return errorf(syscall.EADDRINUSE, "this worker listens on %s already", h.Key)
	case h.Owner != "" && h.Owner != w.owner():
		return errorf(syscall.EADDRINUSE, "%s is exclusive to %s", h.Key.Place(), h.Owner)
	case exclusive && h.Owner == "":
		return errorf(syscall.EADDRINUSE, "%s is shared already (asked for by %s), so it cannot be exclusive", h.Key.Place(), h.Asker)
	}
	return nil
}

// allowed applies bind_allow; by default any port from 1024, and any path below
// the pool's working directory.
func (c *Core) allowed(g *Generation, key proto.Key) *proto.Error {
	spec := &g.Spec
	key = key.Place() // in the messages, who would own it is beside the point
	if spec.AllowSet {
		for _, rule := range spec.Allow {
			if rule.Allows(key.Network, key.Address, key.Port) {
				return nil
			}
		}
		return errorf(syscall.EACCES, "pool %s may not bind %s (bind_allow in its configuration)", spec.Name, key)
	}
	switch {
	case proto.IsUnix(key.Network) && strings.HasPrefix(key.Address, "@"):
		return errorf(syscall.EACCES, "pool %s may not bind %s (an abstract name must be listed in bind_allow)", spec.Name, key)
	case proto.IsUnix(key.Network):
		if dir := path.Clean(spec.Confine.Directory); key.Address != dir && strings.HasPrefix(key.Address, strings.TrimSuffix(dir, "/")+"/") {
			return nil
		}
		return errorf(syscall.EACCES, "pool %s may not bind %s (by default only below its working directory %s; see bind_allow)", spec.Name, key, spec.Confine.Directory)
	case key.Port != 0 && key.Port < 1024:
		return errorf(syscall.EACCES, "pool %s may not bind %s (by default only ports from 1024; see bind_allow, or configure a listener)", spec.Name, key)
	}
	return nil
}

var errnoNames = map[syscall.Errno]string{
	syscall.EADDRINUSE: "EADDRINUSE", syscall.EACCES: "EACCES", syscall.EINVAL: "EINVAL", syscall.EMFILE: "EMFILE", syscall.ENOENT: "ENOENT",
}

func errorf(errno syscall.Errno, format string, args ...any) *proto.Error {
	return &proto.Error{Code: errnoNames[errno], Errno: int(errno), Message: fmt.Sprintf(format, args...)}
}
