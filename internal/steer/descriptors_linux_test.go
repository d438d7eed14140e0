package steer

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/f72e338e/supervisord/fdpass"
)

func descriptors(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil {
			names = append(names, e.Name()+" "+to)
		}
	}
	return slices.DeleteFunc(names, func(s string) bool { return len(s) > 5 && s[len(s)-3:] == "/fd" })
}

// TestDescriptors: 64 members, workers that come and go, and nothing is left open.
func TestDescriptors(t *testing.T) {
	for _, mode := range []Mode{Steered, Hash} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Run("warm up", func(t *testing.T) { useAll(t, mode) })
			before := descriptors(t)
			useAll(t, mode)
			if after := descriptors(t); len(after) > len(before) {
				t.Errorf("before %q\nafter  %q", before, after)
			}
		})
	}
}

func useAll(t *testing.T, mode Mode) {
	const n = 64
	r := &rig{t: t, network: "tcp4", g: New(Options{NoBPF: mode == Hash})}
	if r.g.Mode() != mode {
		needBPF(t, r.g.Why())
	}
	for i := range n {
		r.bind(true)
		r.add(i)
	}
	r.add(5) // again
	for i := range 3 * n {
		page, err := r.g.NewPage()
		r.must(err)
		if i%5 != 4 { // else it ended before it was ready
			r.must(r.g.Serve(i%n, page))
			r.must(r.g.Serve(i%n, page)) // again, as after a rest
		}
		r.must(page.Close())
	}
	for i := range n {
		if _, known := r.g.Load(i); !known {
			t.Errorf("the load of member %d is not known", i)
		}
	}
	r.must(r.g.Serve(3, nil))
	r.must(r.g.Close())
	if _, err := r.g.at(3); !errors.Is(err, ErrNoMember) {
		t.Error(err)
	}
	fdpass.CloseAll(r.socks)
}

// TestManyGenerations: slots of pages are used again, and one whose page came too
// late to keep its slot is found another.
func TestManyGenerations(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	late, err := r.g.NewPage()
	r.must(err)
	defer func() { _ = late.Close() }()
	r.serve(1)
	for range maxPages + 64 {
		page, err := r.g.NewPage()
		r.must(err)
		r.must(r.g.Serve(0, page))
		r.must(page.Close())
	}
	r.must(r.g.Serve(0, late))
	used := 0
	for _, s := range r.g.k.slots {
		used += s.used
	}
	if used != 2 {
		t.Errorf("%d slots are used by 2 members", used)
	}
	r.worker(0)
	r.spread(20)
	if q := r.held(); q[0] != 10 || q[1] != 10 {
		t.Errorf("%v", q)
	}
}

func TestMaxMembers(t *testing.T) {
	r := newRig(t, "tcp4", Steered, MaxMembers)
	r.serveAll()
	r.spread(MaxMembers)
	for i, n := range r.held() {
		if n != 1 {
			t.Errorf("member %d got %d of %d", i, n, MaxMembers)
		}
	}
	if err := r.g.Add(MaxMembers, r.socks[0]); !errors.Is(err, ErrNoMember) {
		t.Error(err)
	}
}
