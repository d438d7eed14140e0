//go:build linux

package worker

import (
	"io"
	"net"
	"testing"
	"time"
)

// BenchmarkServerAccept measures connect, handler and end with a Server against a
// loop over the net package's Accept that starts a goroutine for each connection,
// alternating so that both see the same machine; "ratio" is what ours costs, 1
// meaning nothing.
func BenchmarkServerAccept(b *testing.B) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			go func() { _ = c.Close() }()
		}
	}()
	srv := NewServer(ServerOptions{Worker: alone(b)}, func(*Socket) {})
	if err := srv.Listen(b.Context(), "tcp", "127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	defer srv.Stop()
	addr := [2]string{plain.Addr().String(), srv.Addr().String()}
	const round = 50
	var spent [2]time.Duration
	n := 0
	for b.Loop() {
		for i := range round {
			start := time.Now()
			c, err := net.Dial("tcp", addr[i%2])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				b.Fatal(err)
			}
			spent[i%2] += time.Since(start)
			_ = c.Close()
		}
		n += round / 2
	}
	b.ReportMetric(float64(spent[0].Nanoseconds())/float64(n), "plain-ns/conn")
	b.ReportMetric(float64(spent[1].Nanoseconds())/float64(n), "ours-ns/conn")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}
