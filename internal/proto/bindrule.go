package proto

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// BindRule says which sockets a worker may ask for. It is either a set of ports on
// one or every address, or a set of Unix paths. The zero value allows nothing.
//
//	127.0.0.1:9000-9099   ports of one address, TCP and UDP
//	*:8000                a port of any address
//	udp:[::1]:53          a network, then as above: tcp or udp
//	/run/app/             every path below the directory
//	/run/app/x.sock       this path
//	@name                 this abstract name
//	@name*                every abstract name that begins so
//
// In JSON it is its text.
type BindRule struct {
	Network   string // "tcp", "udp", or "" for both
	Address   string // canonical IP literal, or "*" for every address; "" in a rule for paths
	Low, High int    // ports, both ends included
	Path      string // clean absolute path or abstract name with "@"; "" in a rule for ports
	Prefix    bool   // Path is a directory or the beginning of an abstract name
}

// ParseBindRule reads a rule. The error says what is wrong, without repeating s.
func ParseBindRule(s string) (BindRule, error) {
	switch {
	case strings.ContainsRune(s, 0):
		return BindRule{}, errors.New("holds a NUL byte")
	case strings.HasPrefix(s, "@"):
		name, prefix := strings.CutSuffix(s, "*")
		if s == "@" {
			return BindRule{}, errors.New(`an abstract name must not be empty (write "@*" for all)`)
		}
		return BindRule{Path: name, Prefix: prefix}, nil
	case strings.HasPrefix(s, "/"):
		if escapes(s) {
			return BindRule{}, errors.New(`a path must not contain ".."`)
		}
		if strings.Contains(s, "*") {
			return BindRule{}, errors.New(`a path takes no "*" (end it in "/" for everything below)`)
		}
		clean := path.Clean(s)
		return BindRule{Path: clean, Prefix: strings.HasSuffix(s, "/") || clean == "/"}, nil
	}
	if strings.HasPrefix(s, ".") {
		return BindRule{}, errors.New("a path must be absolute here")
	}
	var r BindRule
	if network, rest, ok := strings.Cut(s, ":"); ok && (network == "tcp" || network == "udp") {
		r.Network, s = network, rest
	}
	return r.parsePorts(s)
}

func (r BindRule) parsePorts(s string) (BindRule, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return BindRule{}, errors.New(`needs an address and a port (write "127.0.0.1:9000-9099", "*:8000", "/run/app/" or "@name")`)
	}
	host, ports := s[:colon], s[colon+1:]
	switch {
	case host == "":
		return BindRule{}, fmt.Errorf(`has no address (write "*:%s" for every address)`, ports)
	case host == "*":
		r.Address = host
	default:
		bare, bracketed := strings.CutPrefix(host, "[")
		if bracketed {
			bare, bracketed = strings.CutSuffix(bare, "]")
		}
		a, err := netip.ParseAddr(bare)
		if err != nil {
			return BindRule{}, fmt.Errorf("%q is not an IP address and not *", host)
		}
		if a.Is6() != bracketed {
			return BindRule{}, errors.New(`an IPv6 address, and only that, is written in brackets ("[::1]:53")`)
		}
		r.Address = a.Unmap().String()
	}
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	a, errLow := strconv.ParseUint(low, 10, 16)
	b, errHigh := strconv.ParseUint(high, 10, 16)
	if errLow != nil || errHigh != nil {
		return BindRule{}, fmt.Errorf("%q is not a port or a range of ports (0 to 65535)", ports)
	}
	if a > b {
		return BindRule{}, fmt.Errorf("the range of ports %s is empty", ports)
	}
	r.Low, r.High = int(a), int(b)
	return r, nil
}

// Allows reports whether the rule covers a request. The address is as in Listen:
// an IP literal or "" for every address, an absolute Unix path, or "@name"; port
// is not looked at for Unix.
//
// A path with a ".." in it is never allowed: behind a symbolic link it would mean
// another file than its text says.
func (r BindRule) Allows(network, address string, port int) bool {
	if IsUnix(network) != (r.Path != "") {
		return false
	}
	if r.Path != "" {
		return r.allowsPath(address)
	}
	if r.Network != "" && !strings.HasPrefix(network, r.Network) || port < r.Low || port > r.High {
		return false
	}
	if r.Address == "*" {
		return true
	}
	return r.Address != "" && r.Address == literal(network, address)
}

func (r BindRule) allowsPath(address string) bool {
	if strings.ContainsRune(address, 0) {
		return false
	}
	if strings.HasPrefix(address, "@") {
		return address == r.Path || r.Prefix && strings.HasPrefix(r.Path, "@") && strings.HasPrefix(address, r.Path)
	}
	if !strings.HasPrefix(address, "/") || escapes(address) {
		return false
	}
	clean := path.Clean(address)
	if !r.Prefix {
		return clean == r.Path
	}
	below := strings.TrimSuffix(r.Path, "/") + "/"
	return strings.HasPrefix(clean, below) && clean != below
}

// String returns the text of the rule; ParseBindRule of it gives the same rule.
func (r BindRule) String() string {
	switch {
	case strings.HasPrefix(r.Path, "@") && r.Prefix:
		return r.Path + "*"
	case r.Prefix && r.Path != "/":
		return r.Path + "/"
	case r.Path != "":
		return r.Path
	case r.Address == "":
		return ""
	}
	s := HostPort(r.Address, r.Low)
	if r.High != r.Low {
		s += "-" + strconv.Itoa(r.High)
	}
	if r.Network != "" {
		s = r.Network + ":" + s
	}
	return s
}

// MarshalText returns String.
func (r BindRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote. Errors: those of ParseBindRule.
func (r *BindRule) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = BindRule{}
		return nil
	}
	rule, err := ParseBindRule(string(text))
	if err != nil {
		return fmt.Errorf("bind rule %q: %w", text, err)
	}
	*r = rule
	return nil
}

// literal is the canonical form of a requested address; every address is that
// wildcard which is bound for it.
func literal(network, address string) string {
	if address == "" {
		if strings.HasSuffix(network, "4") {
			return "0.0.0.0"
		}
		return "::"
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	return a.Unmap().String()
}

func escapes(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }
