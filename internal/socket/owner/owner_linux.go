// Package owner tells who holds an address, for the message after EADDRINUSE:
// "nginx (pid 412)". Only the master imports it; package socket, which workers
// link too, stays without it.
//
// It knows no handle and owns nothing. What it says was true when it looked, and
// is for humans: no decision may rest on it.
//
//	if who := owner.Find("tcp", "0.0.0.0", 80); who != "" {
//		bindErr.Hint = "held by " + who
//	}
package owner

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Budget bounds one search; a host can have a hundred thousand descriptors.
const Budget = 500 * time.Millisecond

// tcpListen is TCP_LISTEN of include/net/tcp_states.h.
const tcpListen = "0A"

// Find names a process that has a socket in the way of the address: network and
// address are those of proto.SocketSpec, the address a literal, "" or a path.
// It reads /proc/net and /proc/*/fd (proc_net(5), proc_pid_fd(5)) and blocks up
// to Budget, so it is for a goroutine beside the loop. It returns "" when nobody
// was found in time, or when the processes of other users may not be looked at.
func Find(network, address string, port int) string {
	deadline := time.Now().Add(Budget)
	inodes := make(map[string]bool)
	if proto.IsUnix(network) {
		unixInodes(inodes, address, deadline)
	} else {
		table := strings.TrimRight(network, "46")
		for _, name := range []string{table, table + "6"} {
			inetInodes(inodes, name, address, port, deadline)
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	pid := holder(inodes, deadline)
	if pid == 0 {
		return ""
	}
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("%s (pid %d)", printable(strings.TrimSpace(string(name))), pid)
}

// rows calls row with the fields of each line of a table in /proc/net until it
// returns false. The tables are read line by line, because one of a busy host has
// a hundred thousand lines, most of them connections.
func rows(name string, deadline time.Time, row func(fields []string) bool) {
	f, err := os.Open("/proc/net/" + name)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() && time.Now().Before(deadline) && row(strings.Fields(lines.Text())) {
	}
}

// unixInodes adds the sockets bound to path: Num RefCount Protocol Flags Type St
// Inode Path.
func unixInodes(inodes map[string]bool, path string, deadline time.Time) {
	rows("unix", deadline, func(f []string) bool {
		if len(f) > 7 && strings.Join(f[7:], " ") == path {
			inodes[f[6]] = true
		}
		return true
	})
}

// inetInodes adds the sockets of a table that hold the port: sl local_address
// rem_address st tx:rx tr:tm retrnsmt uid timeout inode. Those that listen come
// first in the tables of TCP (tcp_get_idx in net/ipv4/tcp_ipv4.c), so reading
// ends with them.
func inetInodes(inodes map[string]bool, table, address string, port int, deadline time.Time) {
	tcp := strings.HasPrefix(table, "tcp")
	rows(table, deadline, func(f []string) bool {
		if len(f) < 10 || tcp && f[3] != tcpListen {
			return false
		}
		if have, ok := parseAddress(f[1]); ok && int(have.Port()) == port && f[9] != "0" && overlaps(have.Addr(), address) {
			inodes[f[9]] = true
		}
		return true
	})
}

// parseAddress reads "0100007F:1F90": words of four bytes in the order of the
// host, and the port.
func parseAddress(text string) (netip.AddrPort, bool) {
	host, portText, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i+4 <= len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(port)), ok
}

// overlaps reports whether a socket on have may stand in the way of one on want.
func overlaps(have netip.Addr, want string) bool {
	if have.IsUnspecified() || proto.IsWildcard(want) {
		return true
	}
	w, err := netip.ParseAddr(want)
	return err == nil && w.Unmap().WithZone("") == have.Unmap()
}

// holder is the first process with one of the sockets open, 0 for none.
func holder(inodes map[string]bool, deadline time.Time) int {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if time.Now().After(deadline) {
			return 0
		}
		if holds(pid, inodes, deadline) {
			return pid
		}
	}
	return 0
}

func holds(pid int, inodes map[string]bool, deadline time.Time) bool {
	dir, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		return false
	}
	defer dir.Close()
	for time.Now().Before(deadline) {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			target, err := os.Readlink(filepath.Join(dir.Name(), name))
			if err != nil {
				continue
			}
			if inode, ok := strings.CutPrefix(target, "socket:["); ok && inodes[strings.TrimSuffix(inode, "]")] {
				return true
			}
		}
		if err != nil || len(names) == 0 {
			return false
		}
	}
	return false
}

// printable keeps a process from writing control characters to a terminal
// through its name.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
