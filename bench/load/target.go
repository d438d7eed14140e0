package load

import (
	"fmt"
	"net/netip"
	"strings"
)

// target is where a group connects to: either addr is valid or path is not
// empty. A path that begins with @ is an abstract name.
type target struct {
	addr netip.AddrPort
	path string
}

// parseTarget reads 127.0.0.1:80, [::1]:80, unix:/run/x, /run/x or @name. Names
// are not resolved: a resolver could lead the load off this machine.
func parseTarget(s string) (target, error) {
	path, isUnix := strings.CutPrefix(s, "unix:")
	if isUnix || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") {
		// unix(7): sun_path holds 108 bytes with the final NUL.
		if path == "" || path == "@" || len(path) > 107 {
			return target{}, fmt.Errorf("cannot load %q: a Unix path has 1 to 107 bytes", s)
		}
		return target{path: path}, nil
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return target{}, fmt.Errorf("cannot load %q: not a literal ADDRESS:PORT nor a Unix path", s)
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	switch {
	case !addr.Addr().IsLoopback() || addr.Addr().Zone() != "":
		return target{}, fmt.Errorf("cannot load %q: not a loopback address (use 127.0.0.0/8, ::1 or a Unix path)", s)
	case addr.Port() == 0:
		return target{}, fmt.Errorf("cannot load %q: port 0", s)
	}
	return target{addr: addr}, nil
}
