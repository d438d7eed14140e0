package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
)

// metric is one figure that is measured of a target.
type metric string

// The metrics. Times are microseconds.
const (
	rate    metric = "rate/s"   // answers a second
	cpu     metric = "cpu us"   // the server's for a request, master and workers together
	master  metric = "m-cpu us" // the same, of the master alone
	p50     metric = "p50 us"   // latency, here and below
	p90     metric = "p90 us"
	p99     metric = "p99 us"
	p999    metric = "p99.9 us"
	heavy   metric = "heavy us" // p50 of the heavy requests
	fewest  metric = "fewest"   // connections of the worker that has the fewest
	most    metric = "most"
	off     metric = "off"      // greatest distance of a worker from the even share, connections
	crowded metric = "most/avg" // the most by the average
)

var allMetrics = []metric{rate, cpu, master, p50, p90, p99, p999, heavy, fewest, most, off, crowded}

// sample is what one run of a target showed; a metric that is missing was not
// measured.
type sample map[metric]float64

// latencies makes a sample of a run. The first group is the one that is judged,
// those behind it are the heavy ones.
func latencies(res load.Result, srv *server) sample {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	g := res.Groups[0]
	s := sample{p50: us(g.Latency.P50), p90: us(g.Latency.P90), p99: us(g.Latency.P99), p999: us(g.Latency.P999)}
	if res.Elapsed > 0 {
		s[rate] = float64(g.Answered) / res.Elapsed.Seconds()
	}
	if res.Begun > 0 && len(srv.all()) > 0 {
		s[cpu] = us(res.Sample().CPU)
	}
	if spent, ok := res.CPU[srv.master]; ok && res.Begun > 0 {
		s[master] = us(spent) / float64(res.Begun)
	}
	if len(res.Groups) > 1 {
		s[heavy] = us(res.Groups[1].Latency.P50)
	}
	return s
}

// spread makes a sample of a run whose connections were all kept, one answer each.
// A worker that had none is in no answer, so their number has to be known.
func spread(res load.Result, workers int) sample {
	even := float64(res.Answered) / float64(workers)
	low, high := float64(res.Answered), 0.0
	for _, n := range res.PIDs {
		low, high = min(low, float64(n)), max(high, float64(n))
	}
	if len(res.PIDs) < workers {
		low = 0
	}
	s := sample{fewest: low, most: high, off: max(even-low, high-even)}
	if even > 0 {
		s[crowded] = high / even
	}
	return s
}

// lost returns what makes a run a failure: requests that were lost, or none
// answered. The remark is what else was wrong: a stated rate that was missed is the
// client's doing, on a machine that is too busy.
func lost(res load.Result) (remark string, failure error) {
	if res.Failures() == 0 && res.Answered > 0 {
		return strings.Join(res.Problems, "; "), nil
	}
	text := fmt.Sprintf("%d of %d requests failed", res.Failures(), res.Begun)
	for _, kind := range load.Kinds {
		if n := res.Failed[kind]; n > 0 {
			text += fmt.Sprintf(", %s %d", kind, n)
		}
	}
	if len(res.Examples) > 0 {
		text += "; " + res.Examples[0].String()
	}
	return "", errors.New(text)
}
