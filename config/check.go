package config

import (
	"fmt"
	"maps"
	"slices"

	"github.com/f72e338e/supervisord/internal/proto"
)

// check makes the checks between listeners and pools.
func (l *loader) check() {
	l.duplicatePlaces()
	l.references()
	l.policies()
}

// policies checks how connections reach the pools, and chooses where nothing is said:
// Node's programs expect what Node does.
func (l *loader) policies() {
	for i := range l.c.Listeners {
		ln := &l.c.Listeners[i]
		users, nodes := 0, 0
		for j := range l.c.Pools {
			p := &l.c.Pools[j]
			k := slices.Index(p.Listeners, ln.Name)
			if k < 0 || l.pools[p.Name].bad["protocol"] {
				continue
			}
			users++
			if p.Protocol == "node" {
				nodes++
			}
			if problem := pairProblem(p.Protocol, ln.Policy); problem != "" {
				l.pools[p.Name].errorAt("listeners", element(k), "%q %s", ln.Name, problem)
			}
		}
		if users > 0 && nodes == users && !l.listeners[ln.Name].has("policy") && !proto.IsDatagram(ln.Spec.Network) {
			ln.Policy = proto.PolicyRoundRobin
		}
	}
}

// pairProblem says why workers of a protocol cannot serve a listener of a policy.
func pairProblem(protocol, policy string) string {
	switch {
	case protocol == "systemd" && proto.IsDispatched(policy):
		return fmt.Sprintf("has policy %q, and a worker with protocol \"systemd\" accepts for itself (policy = \"shared\")", policy)
	case (protocol == "systemd" || protocol == "node") && policy == proto.PolicyReusePort:
		return fmt.Sprintf("has policy %q: a worker with protocol %q cannot take over what was queued for one that is gone (policy = \"shared\")", policy, protocol)
	}
	return ""
}

// duplicatePlaces refuses two listeners on one address.
func (l *loader) duplicatePlaces() {
	first := map[string]*Listener{}
	for i := range l.c.Listeners {
		ln := &l.c.Listeners[i]
		t := l.listeners[ln.Name]
		at := place(&ln.Spec)
		key := "address"
		if ln.Spec.Inherit != "" {
			key = "from"
		}
		if at == "" || t.bad[key] || t.bad["network"] {
			continue
		}
		if other := first[at]; other != nil {
			t.errorf(key, "the same socket as listener %q", other.Name)
			continue
		}
		first[at] = ln
	}
}

// references checks the listeners that the pools name. A name that is missing is
// not reported when a file is: it may be defined there.
func (l *loader) references() {
	users := map[string]string{} // exclusive listener: the pool that has it
	defined := slices.Sorted(maps.Keys(l.listeners))
	for i := range l.c.Pools {
		p := &l.c.Pools[i]
		t := l.pools[p.Name]
		t.names("listeners", p.Listeners, func(name string) string {
			if l.listeners[name] == nil {
				if l.broken {
					return ""
				}
				return "is no listener" + suggestion(name, defined)
			}
			return l.exclusiveProblem(p, name, users)
		})
	}
}

// exclusiveProblem says why a pool cannot have an exclusive listener, which
// belongs to one slot.
func (l *loader) exclusiveProblem(p *Pool, name string, users map[string]string) string {
	i := slices.IndexFunc(l.c.Listeners, func(ln Listener) bool { return ln.Name == name })
	if i < 0 || !l.c.Listeners[i].Exclusive {
		return ""
	}
	other, taken := users[name]
	users[name] = p.Name
	switch {
	case taken && other != p.Name:
		return fmt.Sprintf("is exclusive and already belongs to pool %q", other)
	case p.WorkersAuto:
		return `is exclusive, for one worker, and workers = "auto" may be more (write workers = 1)`
	case p.Workers > 1:
		return fmt.Sprintf("is exclusive, for one worker, and the pool has %d (write workers = 1, or exclusive = false)", p.Workers)
	}
	return ""
}

func suggestion(name string, candidates []string) string {
	switch near := nearest(name, candidates); {
	case near != "":
		return fmt.Sprintf(" (did you mean %q?)", near)
	case len(candidates) == 0:
		return " (none is defined)"
	case len(candidates) <= 12:
		return fmt.Sprintf(" (defined: %s)", quoteAll(candidates))
	}
	return ""
}
