//go:build linux

package worker

import (
	"net"
	"testing"
	"time"
)

// BenchmarkAccept measures connect, accept and close with our listener against
// the plain one of the net package, alternating so that both see the same
// machine; "ratio" is what ours costs, 1 meaning nothing.
func BenchmarkAccept(b *testing.B) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	counted, err := alone(b).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer counted.Close()
	const round = 50
	var spent [2]time.Duration
	n := 0
	for b.Loop() {
		for i := range round {
			which := i % 2
			l := []net.Listener{plain, counted}[which]
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			start := time.Now()
			s, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
			spent[which] += time.Since(start)
			c.Close()
		}
		n += round / 2
	}
	b.ReportMetric(float64(spent[0].Nanoseconds())/float64(n), "plain-ns/conn")
	b.ReportMetric(float64(spent[1].Nanoseconds())/float64(n), "ours-ns/conn")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}
