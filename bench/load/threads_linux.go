package load

import (
	"context"
	"errors"
	"sync"
)

// runThreads carries out a plan with several loops at once. A client of one thread
// is busy with some 25000 new connections a second on this kind of machine: a
// faster server is measured with more.
func runThreads(ctx context.Context, plan Plan, targets []target) (Result, error) {
	n := plan.Threads
	results, errs := make([]Result, n), make([]error, n)
	before := cpuOf(plan.CPUOf)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i], errs[i] = Run(ctx, plan.share(i)) })
	}
	wg.Wait()
	after := cpuOf(plan.CPUOf)
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	r := results[0]
	r.Groups, r.CPU = nil, nil
	for i, g := range plan.Groups {
		var parts []Figures
		for _, one := range results {
			parts = append(parts, one.Groups[i])
		}
		sum := total(parts)
		sum.Name = g.Name
		r.Groups = append(r.Groups, sum)
	}
	for _, one := range results[1:] {
		r.Elapsed = max(r.Elapsed, one.Elapsed)
		r.Examples = append(r.Examples, one.Examples...)
		r.ClientCPU += one.ClientCPU
	}
	r.CPU = spent(before, after)
	r.Figures = total(r.Groups)
	tcp := false
	for _, t := range targets {
		tcp = tcp || t.path == ""
	}
	r.judge(tcp)
	return r, nil
}

// share is the part of one thread.
func (p Plan) share(i int) Plan {
	n := p.Threads
	part := func(all int) int { return (all + n - 1 - i) / n }
	p.Threads, p.CPUOf, p.MaxOpen = 0, nil, part(p.MaxOpen)
	p.Groups = append([]Group(nil), p.Groups...)
	for j := range p.Groups {
		g := &p.Groups[j]
		g.Clients, g.Rate = part(g.Clients), g.Rate/float64(n)
		if g.Count > 0 {
			g.Count = part(g.Count)
		}
	}
	return p
}
