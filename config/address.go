package config

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

const (
	// maxPath is what sun_path of unix(7) holds, without the final NUL.
	maxPath = 107
	// resolveTimeout bounds a look-up of a host name: a reload must not hang on DNS.
	resolveTimeout = 5 * time.Second
)

// lookupNetIP is the resolver; a test has its own.
var lookupNetIP = net.DefaultResolver.LookupNetIP

// address reads an address into spec. A network before it, as in "unix:/path",
// must not contradict a network that is stated.
func (l *loader) address(t *table, s string, spec *proto.SocketSpec) {
	if network, rest, ok := splitNetwork(s); ok {
		if t.has("network") && network != spec.Network {
			t.errorf("address", "%q contradicts network = %q", s, spec.Network)
			return
		}
		spec.Network, s = network, rest
	}
	if proto.IsUnix(spec.Network) {
		l.unixAddress(t, s, spec)
		return
	}
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") {
		t.errorf("address", `%q is a path, and the network is %s (write network = "unix")`, s, spec.Network)
		return
	}
	host, port, problem := splitHostPort(s)
	if problem != "" {
		t.errorf("address", "%s", problem)
		return
	}
	spec.Port = port
	if spec.Address, problem = resolveHost(spec.Network, host); problem != "" {
		t.errorf("address", "%s", problem)
	}
}

// splitNetwork takes the network off "unix:/path" or "udp:127.0.0.1:53". What
// stands before the colon of "udp:53" is a host.
func splitNetwork(s string) (network, rest string, ok bool) {
	network, rest, ok = strings.Cut(s, ":")
	if !ok || !proto.KnownNetwork(network) {
		return "", s, false
	}
	return network, rest, proto.IsUnix(network) || strings.Contains(rest, ":")
}

func (l *loader) unixAddress(t *table, s string, spec *proto.SocketSpec) {
	switch {
	case s == "" || s == "@":
		t.errorf("address", "the path is empty")
		return
	case strings.HasPrefix(s, "@"):
		spec.Address = s
	case strings.HasSuffix(s, "/"):
		t.errorf("address", "%q is a directory", s)
		return
	default:
		spec.Address = l.abs(s)
	}
	pathFits(t, "address", spec.Address)
}

func pathFits(t *table, key, path string) {
	if len(path) > maxPath {
		t.errorf(key, "the path %q has %d bytes (at most %d, unix(7))", path, len(path), maxPath)
	}
}

// abs makes a path of the configuration absolute.
func (l *loader) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(l.dir, path)
}

func splitHostPort(s string) (host string, port int, problem string) {
	const forms = `such as "127.0.0.1:8080", ":8080", "[::1]:80"`
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		if _, err := strconv.ParseUint(s, 10, 16); err == nil {
			return "", 0, strconv.Quote(s) + " has no address (write \":" + s + "\" for every address)"
		}
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
			return "", 0, strconv.Quote(s) + " has no port (write \"[" + s + "]:8080\")"
		}
		return "", 0, strconv.Quote(s) + " is not an address and a port (" + forms + ")"
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, strconv.Quote(text) + " is not a port (0 to 65535)"
	}
	if host == "*" {
		host = ""
	}
	return host, int(n), ""
}

// resolveHost returns the literal of a host; "" stays "". Of several addresses
// that a name has, the first IPv4 one is taken, as the reference does.
func resolveHost(network, host string) (literal, problem string) {
	if host == "" {
		return "", ""
	}
	fits := func(a netip.Addr) bool {
		v4 := a.Is4() || a.Is4In6()
		return !(strings.HasSuffix(network, "4") && !v4 || strings.HasSuffix(network, "6") && a.Is4())
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if !fits(a) {
			return "", strconv.Quote(host) + " is not an address for " + network
		}
		return a.String(), ""
	}
	if !validHost(host) {
		return "", strconv.Quote(host) + " is neither an IP address nor a host name"
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	found, err := lookupNetIP(ctx, "ip", host)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return "", "cannot resolve " + strconv.Quote(host) + ": " + dns.Err
		}
		return "", "cannot resolve " + strconv.Quote(host) + ": " + err.Error()
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	found = slices.DeleteFunc(found, func(a netip.Addr) bool { return !fits(a) })
	if len(found) == 0 {
		return "", strconv.Quote(host) + " has no address for " + network
	}
	if i := slices.IndexFunc(found, netip.Addr.Is4); i >= 0 {
		return found[i].String(), ""
	}
	return found[0].String(), ""
}

// validHost keeps what cannot be a host name away from the resolver.
func validHost(s string) bool {
	return len(s) <= 253 && validName(strings.ReplaceAll(s, ".", "")) && !strings.HasPrefix(s, "-") && !strings.HasPrefix(s, ".")
}

// addressText is the inverse of address.
func addressText(s *proto.SocketSpec) string {
	if proto.IsUnix(s.Network) {
		return s.Address
	}
	return net.JoinHostPort(s.Address, strconv.Itoa(s.Port))
}

// isIPv6 reports whether the socket is, or without an address becomes, an IPv6 one.
func isIPv6(s *proto.SocketSpec) bool {
	if s.Address == "" {
		return !strings.HasSuffix(s.Network, "4")
	}
	a, err := netip.ParseAddr(s.Address)
	return err == nil && a.Is6()
}

// socketKind names the kind of a socket in errors.
func socketKind(s *proto.SocketSpec) string {
	if strings.HasPrefix(s.Address, "@") {
		return "an abstract name"
	}
	return s.Network
}

// place is equal for two sockets that cannot both be bound; "" when that cannot
// be told.
func place(s *proto.SocketSpec) string {
	switch {
	case s.Inherit != "":
		return "systemd:" + s.Inherit
	case proto.IsUnix(s.Network):
		return "unix:" + s.Address
	case s.Port == 0:
		return ""
	}
	address := s.Address
	if address == "" {
		address = "::"
		if !isIPv6(s) {
			address = "0.0.0.0"
		}
	}
	return strings.TrimRight(s.Network, "46") + ":" + net.JoinHostPort(address, strconv.Itoa(s.Port))
}
