package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHist(t *testing.T) {
	var h hist
	var all []int64
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		ns := int64(1) << rng.IntN(36)
		ns += rng.Int64N(ns)
		h.add(ns)
		all = append(all, ns)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		want, got := float64(all[int(q*float64(len(all)))]), float64(h.at(q))
		if got < want || got > want*1.01+1 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if int64(h.latency().Max) != all[len(all)-1] {
		t.Errorf("max %v, want %v", h.latency().Max, all[len(all)-1])
	}
	for i := range 200_000 {
		if at := histIndex(int64(i)); int64(i) > histEdge(at) || (at > 0 && int64(i) <= histEdge(at-1)) {
			t.Fatalf("%d lies in part %d, up to %d", i, at, histEdge(at))
		}
	}
	h.add(1 << 62) // beyond the end: the last part
}

func TestDropsText(t *testing.T) {
	d, err := parseDrops("TcpExt: A ListenOverflows ListenDrops B\nTcpExt: 1 22 333 4\nIpExt: A\nIpExt: 1\n")
	if err != nil || d != (Drops{22, 333}) {
		t.Errorf("%v, %v", d, err)
	}
	for _, text := range []string{"", "TcpExt: A\nTcpExt: 1\n", "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1\n", "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 x\n"} {
		if d, err := parseDrops(text); err == nil {
			t.Errorf("%q: %v", text, d)
		}
	}
}

func TestJSON(t *testing.T) {
	r := Result{Figures: Figures{Name: "total", Begun: 3, Failed: map[Kind]int{Reset: 1}, PIDs: map[int]int{7: 2}}, Problems: []string{"x"}}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"begun":3`, `"failed":{"reset":1}`, `"pids":{"7":2}`, `"p999_ns":0`, `"listen_overflows":0`, `"problems":["x"]`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

func TestAlternate(t *testing.T) {
	var order strings.Builder
	side := func(name string, rates ...float64) Side {
		i := 0
		return Side{name, func() (Sample, error) {
			order.WriteString(name)
			s := Sample{Rate: rates[i], P50: time.Millisecond, P99: time.Duration(rates[i])}
			i++
			return s, nil
		}}
	}
	c, err := Alternate(3, side("a", 100, 210, 900), side("b", 50, 100, 1000))
	if err != nil {
		t.Fatal(err)
	}
	if order.String() != "abbaab" {
		t.Errorf("order %s", order.String())
	}
	if c.A.Rate != 210 || c.B.Rate != 100 || c.OfMedians.Rate != 2.1 || c.Pairwise.Rate != 2 || c.Pairwise.P50 != 1 || c.Pairwise.CPU != 0 {
		t.Errorf("%+v", c)
	}
	var b strings.Builder
	if err := c.WriteTable(&b); err != nil || !strings.Contains(b.String(), "median of ratios") {
		t.Errorf("%v\n%s", err, b.String())
	}
	lost := errors.New("lost")
	if _, err := Alternate(1, side("a", 1), Side{"b", func() (Sample, error) { return Sample{}, lost }}); !errors.Is(err, lost) {
		t.Errorf("error %v", err)
	}
	if _, err := Alternate(0, Side{}, Side{}); err == nil {
		t.Error("no rounds: accepted")
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[time.Duration]string{0: "0s", 999: "999ns", 123456: "123µs", 12345678: "12.3ms", 5123456789: "5.12s"} {
		if got := short(in).String(); got != want {
			t.Errorf("%d: %s, want %s", in, got, want)
		}
	}
}

// FuzzParseHead: more bytes never change what was said of fewer, except from
// "incomplete", and sizes stay inside the input and the bounds.
func FuzzParseHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Worker: 12\r\nConnection: close\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.0 503\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b)
		if h.size < 0 || h.size > len(b) || h.length > maxAnswer || (err == nil && h.size > 0 && h.length < 0) {
			t.Fatalf("%+v, %v", h, err)
		}
		if h.size > 0 {
			if h2, err2 := parseHead(b[:h.size]); h2 != h || (err2 == nil) != (err == nil) {
				t.Fatalf("%+v, %v with what follows; %+v, %v without", h, err, h2, err2)
			}
		}
	})
}
