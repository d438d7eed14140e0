package owner

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindNamesTheHolder(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	path := filepath.Join(t.TempDir(), "s")
	un, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer un.Close()
	tcpPort, udpPort := tcp.Addr().(*net.TCPAddr).Port, udp.LocalAddr().(*net.UDPAddr).Port
	six, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6")
	}
	defer six.Close()
	me := fmt.Sprintf("(pid %d)", os.Getpid())
	for _, c := range []struct {
		network, address string
		port             int
		found            bool
	}{
		{"tcp", "127.0.0.1", tcpPort, true},
		{"tcp", "", tcpPort, true},
		{"tcp", "::", tcpPort, true},
		{"tcp", "127.0.0.2", tcpPort, false},
		{"tcp6", "::1", six.Addr().(*net.TCPAddr).Port, true},
		{"tcp", "::2", six.Addr().(*net.TCPAddr).Port, false},
		{"udp", "127.0.0.1", udpPort, true},
		{"unix", path, 0, true},
		{"unix", path + "x", 0, false},
	} {
		got := Find(c.network, c.address, c.port)
		if strings.HasSuffix(got, me) != c.found || (got != "") != c.found {
			t.Errorf("Find(%s, %q, %d) = %q, want %v", c.network, c.address, c.port, got, c.found)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("0100007F:1F90")
	f.Add("00000000000000000000000001000000:0050")
	f.Fuzz(func(t *testing.T, text string) { parseAddress(text) })
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb"); got != "a?[2Jb" {
		t.Errorf("got %q", got)
	}
}
