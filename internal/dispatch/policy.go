package dispatch

import "math/bits"

// Policy says which free member gets the next connection.
type Policy uint8

// The policies.
const (
	RoundRobin       Policy = iota + 1 // each in turn
	LeastConnections                   // the one with the fewest open
	SourceHash                         // the one that the client's address leads to
)

// ParsePolicy returns the policy of a configured name; false when it is none of
// those that dispatch.
func ParsePolicy(name string) (Policy, bool) {
	switch name {
	case "round_robin":
		return RoundRobin, true
	case "least_connections":
		return LeastConnections, true
	case "source_hash":
		return SourceHash, true
	}
	return 0, false
}

// choose returns the member for a connection, nil when none may take it now.
func (h *handle) choose(c conn) *member {
	if h.policy == SourceHash && h.peers > 0 && !h.deep { // its own worker, though another has less to do
		h.deep = true
		defer func() { h.deep = false }()
	}
	m := h.chooseAmong(c)
	if m == nil && c.soft {
		c.not = 0
		m = h.chooseAmong(c)
	}
	if m == nil && h.peers > 0 && !h.deep {
		h.deep = true
		m = h.choose(c)
		h.deep = false
	}
	return m
}

// chooseAmong leaves out the one who passed it on.
func (h *handle) chooseAmong(c conn) *member {
	switch h.policy {
	case LeastConnections:
		return h.least(c)
	case SourceHash:
		return h.byHash(c)
	}
	return h.inTurn(c)
}

// takes reports whether the member may be given the connection now.
func (m *member) takes(c conn) bool { return m.free() && (c.not == 0 || c.not != m.worker) }

// maxBehind bounds what a member that was busy has to catch up with.
const maxBehind = 4

// inTurn gives each as many as the others: to the free member that had the fewest,
// and among equals to the one behind the last. A member that was busy when its
// turn came gets it afterwards; one that was busy for long does not get them all.
func (h *handle) inTurn(c conn) *member {
	var best *member
	at := 0
	for i := range h.members {
		j := (h.turn + i) % len(h.members)
		if m := h.members[j]; m.takes(c) && (best == nil || m.given < best.given) {
			best, at = m, j
		}
	}
	if best == nil {
		return nil
	}
	h.turn = at + 1
	best.given = max(best.given, h.given-maxBehind) + 1
	h.given = max(h.given, best.given)
	return best
}

// least takes turns among equals, so that an idle pool is used evenly.
func (h *handle) least(c conn) *member {
	var best *member
	var fewest int64
	at := 0
	for i := range h.members {
		j := (h.turn + i) % len(h.members)
		m := h.members[j]
		if !m.takes(c) {
			continue
		}
		if n := m.open() + int64(len(m.batch)); best == nil || n < fewest {
			best, fewest, at = m, n, j
		}
	}
	if best != nil {
		h.turn = at + 1
	}
	return best
}

// byHash is rendezvous hashing (Thaler and Ravishankar, 1998): when a slot comes
// or goes only its own clients move. A client whose worker is busy goes to its
// second choice rather than wait.
func (h *handle) byHash(c conn) *member {
	var best *member
	var most uint64
	for _, m := range h.members {
		if !m.takes(c) {
			continue
		}
		if w := mix(c.hash ^ mix(uint64(m.slot)+1)); best == nil || w > most {
			best, most = m, w
		}
	}
	return best
}

// mix is the finaliser of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// hashAddress hashes the bytes of a client's address.
func hashAddress(b []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = bits.RotateLeft64((h^uint64(c))*0x100000001b3, 7)
	}
	return mix(h)
}
