package load

import (
	"math/bits"
	"time"
)

// Latency says how long right answers took, late ones too, to 1 %. Max is exact.
type Latency struct {
	P50  time.Duration `json:"p50_ns"`
	P90  time.Duration `json:"p90_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

// Every power of two of nanoseconds is cut into histHalf equal parts.
const (
	histBits = 7
	histHalf = 1 << histBits
	histExps = 36 // up to 2^42 ns, over an hour
)

// hist counts durations in fixed memory (36 KiB). The zero value is ready.
type hist struct {
	count [histExps * histHalf]uint64
	n     uint64
	max   int64
}

func (h *hist) add(ns int64) {
	ns = max(ns, 0)
	h.count[histIndex(ns)]++
	h.n++
	h.max = max(h.max, ns)
}

func (h *hist) merge(o *hist) {
	for i, n := range o.count {
		h.count[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// at returns the upper edge of the part in which the quantile q lies.
func (h *hist) at(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	var sum uint64
	for i, n := range h.count {
		if sum += n; sum > rank {
			return time.Duration(min(histEdge(i), h.max))
		}
	}
	return time.Duration(h.max)
}

func (h *hist) latency() Latency {
	return Latency{P50: h.at(0.5), P90: h.at(0.9), P99: h.at(0.99), P999: h.at(0.999), Max: time.Duration(h.max)}
}

func histIndex(ns int64) int {
	exp := bits.Len64(uint64(ns)) - histBits - 1
	if exp < 0 {
		return int(ns)
	}
	return min((exp+1)*histHalf+int(ns>>exp)-histHalf, histExps*histHalf-1)
}

// histEdge is the greatest value of part i.
func histEdge(i int) int64 {
	if i < 2*histHalf {
		return int64(i)
	}
	exp := i/histHalf - 1
	return (int64(i%histHalf)+histHalf+1)<<exp - 1
}
