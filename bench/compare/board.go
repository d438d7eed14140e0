package main

import (
	"context"
	"slices"
)

// side is one of the things that are compared.
type side struct {
	name string
	run  func(context.Context) (sample, error)
}

// board holds what the rounds of a comparison showed.
type board struct {
	names  []string
	rounds []map[string]sample // by round and side
	failed map[string]error    // sides that failed are out from then on
}

// alternate runs every side n times, one after the other, in another order each
// round, so that none has the better part of a machine that warms up or slows
// down, and none always runs behind the same other. A side that fails has no
// figures. It ends early, with ctx's error, when ctx ends.
func alternate(ctx context.Context, n int, sides []side, told func(round int, name string, s sample, err error)) (*board, error) {
	b := &board{failed: map[string]error{}}
	for _, s := range sides {
		b.names = append(b.names, s.name)
	}
	for round := range n {
		seen := map[string]sample{}
		for _, i := range order(round, len(sides)) {
			s := sides[i]
			if b.failed[s.name] != nil {
				continue
			}
			got, err := s.run(ctx)
			if ctx.Err() != nil {
				return b, ctx.Err()
			}
			told(round, s.name, got, err)
			if err != nil {
				b.failed[s.name] = err
				continue
			}
			seen[s.name] = got
		}
		b.rounds = append(b.rounds, seen)
	}
	return b, nil
}

// order is a permutation of n sides: every second round goes backwards through the
// one before, and each pair of rounds begins half-way on from the last.
func order(round, n int) []int {
	list := make([]int, n)
	from := round / 2 * (n/2 + 1)
	for k := range list {
		list[k] = (from + k) % n
	}
	if round%2 == 1 {
		slices.Reverse(list)
	}
	return list
}

// median is that of a metric over all rounds; false when the side has none.
func (b *board) median(name string, m metric) (float64, bool) {
	return b.over(func(round map[string]sample) (float64, bool) {
		v, ok := round[name][m]
		return v, ok
	}, name)
}

// ratio is the median of the ratios of the rounds: what drifts from round to
// round cancels out.
func (b *board) ratio(name, base string, m metric) (float64, bool) {
	return b.over(func(round map[string]sample) (float64, bool) {
		v, ok := round[name][m]
		w := round[base][m]
		if !ok || w == 0 {
			return 0, false
		}
		return v / w, true
	}, name, base)
}

// difference is the median of the differences of the rounds.
func (b *board) difference(name, base string, m metric) (float64, bool) {
	return b.over(func(round map[string]sample) (float64, bool) {
		v, ok := round[name][m]
		w, also := round[base][m]
		return v - w, ok && also
	}, name, base)
}

// over is the median of what the rounds give, unless a side failed.
func (b *board) over(of func(map[string]sample) (float64, bool), names ...string) (float64, bool) {
	for _, name := range names {
		if b.failed[name] != nil {
			return 0, false
		}
	}
	var list []float64
	for _, round := range b.rounds {
		if v, ok := of(round); ok {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return 0, false
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2, true
}
