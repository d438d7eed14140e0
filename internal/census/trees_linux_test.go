package census

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTrees: children, those with a session of their own, and those that nobody is
// the parent of any more.
func TestTrees(t *testing.T) {
	noLeaks(t)
	a, b := startWorker(t), startWorker(t)
	child, session, orphan := a.do("child"), a.do("session"), a.do("orphan")
	other := b.do("child")
	reaper := reaperOf(t, orphan)
	for _, c := range []struct {
		name    string
		orphans Orphans
		want    []int
	}{
		{"unmarked", Orphans{}, []int{a.pid, child, session}},
		{"marked", Orphans{Lines: map[int]string{a.pid: mark + t.Name()}, Reaper: reaper}, []int{a.pid, child, session, orphan}},
		{"part of a line", Orphans{Lines: map[int]string{a.pid: mark + "Test"}, Reaper: reaper}, []int{a.pid, child, session}},
		{"another's line", Orphans{Lines: map[int]string{a.pid: mark + "x", b.pid: mark + "y"}, Reaper: reaper}, []int{a.pid, child, session}},
	} {
		t.Run(c.name, func(t *testing.T) {
			trees, err := Trees([]int{a.pid, b.pid}, c.orphans)
			must(t, err)
			slices.Sort(c.want)
			if got := trees[a.pid]; !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if got := trees[b.pid]; !slices.Equal(got, []int{b.pid, other}) {
				t.Errorf("the other: got %v, want %v", got, []int{b.pid, other})
			}
		})
	}
}

// reaperOf returns the parent of a process that was left alone.
func reaperOf(t *testing.T, pid int) int {
	t.Helper()
	p, err := new(reader).process(procPath(pid))
	must(t, err)
	return p.parent
}

// TestOrphans: what an orphan starts is found by way of it, and a process is in one
// tree only.
func TestOrphans(t *testing.T) {
	noLeaks(t)
	w := startPython(t, `
def rest():
    os.close(1)
    os.read(3, 1)
    os._exit(0)
r, end = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        child = os.fork()
        if child:
            os.write(end, f"{os.getpid()}\n{child}\n".encode())
        rest()
    os._exit(0)
os.wait()
sys.stdout.write(os.read(r, 100).decode())
sys.stdout.flush()
os.read(3, 1)
`, listen(t, plan{network: "tcp4"}).fd)
	orphan, child := w.line(), w.line()
	lines := map[int]string{w.pid: mark + t.Name()}
	trees, err := Trees([]int{w.pid, child}, Orphans{Lines: lines, Reaper: reaperOf(t, orphan)})
	must(t, err)
	if got := trees[w.pid]; !slices.Equal(got, []int{w.pid, orphan}) || !slices.Equal(trees[child], []int{child}) {
		t.Errorf("got %v; leader %d, orphan %d, child %d", trees, w.pid, orphan, child)
	}
	trees, err = Trees([]int{w.pid}, Orphans{Lines: lines, Reaper: reaperOf(t, orphan)})
	must(t, err)
	if got := trees[w.pid]; !slices.Equal(got, []int{w.pid, orphan, child}) {
		t.Errorf("got %v; leader %d, orphan %d, child %d", trees, w.pid, orphan, child)
	}
}

// TestZombie: who has ended is in no tree, and when somebody asks all the same, has
// nothing. Its directory in /proc is root's.
func TestZombie(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	w := startWorker(t, l.fd)
	l.dial(1)
	w.do("accept 1")
	zombie := w.do("zombie")
	until(t, "a zombie", func() bool {
		p, err := new(reader).process(procPath(zombie))
		return err == nil && p.ended()
	})
	if got := w.tree(); !slices.Equal(got, []int{w.pid}) {
		t.Fatalf("tree %v", got)
	}
	w.wantIn([]int{w.pid, zombie, 1 << 30}, []int{1}, l)
	if how, err := Accepting(l.Socket, []int{zombie, 1 << 30}); how != "" || err != nil {
		t.Fatal(how, err)
	}
}

// TestFirstThreadEnded: a process whose first thread has ended looks like a zombie,
// but lives.
func TestFirstThreadEnded(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	w := startPython(t, `
def serve():
    conn = s.accept()
    while True:
        other = s.accept()
threading.Thread(target=serve).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
`, l.fd)
	until(t, "the end of the thread", func() bool {
		p, err := new(reader).process(procPath(w.pid))
		must(t, err)
		return p.ended() && p.threads == 1+1
	})
	l.dial(1)
	l.wantQueue(0)
	tree := w.tree()
	if !slices.Equal(tree, []int{w.pid}) {
		t.Fatal(tree)
	}
	w.wantIn(tree, []int{1}, l)
	w.wantHow(l, "accept")
}

// TestGoneLeader: a tree of nobody is empty; one whose leader ended is the rest of
// its session.
func TestGoneLeader(t *testing.T) {
	noLeaks(t)
	w := startWorker(t)
	child := w.do("child")
	must(t, unix.Kill(w.pid, unix.SIGKILL))
	until(t, "the end of the leader", func() bool { return !slices.Contains(w.tree(), w.pid) })
	if got := w.tree(); !slices.Equal(got, []int{child}) {
		t.Fatalf("got %v, want %d", got, child)
	}
	trees, err := Trees([]int{1 << 30}, Orphans{})
	if got, ok := trees[1<<30]; err != nil || !ok || got != nil {
		t.Fatal(trees, err)
	}
}

// TestChurn: processes begin and end while we look, and nothing comes of it.
func TestChurn(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	l.dial(1)
	w := startPython(t, `
conn = s.accept()
more = [os.dup(0) for i in range(200)]
print(1, flush=True)
while True:
    children = []
    for i in range(8):
        child = os.fork()
        if child == 0:
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
`, l.fd)
	w.line()
	ended := 0
	for range 100 {
		tree := w.tree()
		for _, pid := range tree {
			if pid != w.pid {
				ended++
			}
		}
		if got := counts(t, map[int][]int{w.pid: tree}, l)[w.pid]; got[0] != 1 {
			t.Fatalf("tree %v holds %v", tree, got)
		}
		if how, err := Accepting(l.Socket, tree); how != "" || err != nil {
			t.Fatal(how, err)
		}
	}
	if ended == 0 {
		t.Fatal("no child was seen")
	}
}

// TestUnreadable: of another user's process nothing is known, which is not zero.
func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	l.dial(1)
	w := startWorker(t, l.fd)
	w.do("accept 1")
	tallies, err := Connections([]Socket{l.Socket}, map[int][]int{1: {1}, 2: {w.pid}, 3: {w.pid, 1}})
	must(t, err)
	for _, tree := range []int{1, 3} {
		if err := tallies[tree].Err; !isDenied(err) || tallies[tree].Open != nil || !strings.Contains(fmt.Sprint(err), "CAP_SYS_PTRACE") {
			t.Errorf("%d: %+v", tree, tallies[tree])
		}
	}
	if tallies[2].Err != nil || tallies[2].Open[0] != 1 {
		t.Errorf("our own: %+v", tallies[2])
	}
	if how, err := Accepting(l.Socket, []int{w.pid, 1}); how != "" || !isDenied(err) {
		t.Error(how, err)
	}
}

// TestNoOrphanOfOthers: the environment of another user's process is not ours to
// read, which is no error.
func TestNoOrphanOfOthers(t *testing.T) {
	noLeaks(t)
	w := startWorker(t)
	trees, err := Trees([]int{w.pid}, Orphans{Lines: map[int]string{w.pid: "NO=SUCH"}})
	if err != nil || !slices.Equal(trees[w.pid], []int{w.pid}) {
		t.Fatal(trees, err)
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 7 8 9 10 11 4194308 13 14 15 16 17 18 19 20 21 22 -3 24 25"
	for name, text := range map[string]string{"plain": "12 (web) S", "odd": "12 (a) S 1 (b c) S", "newline": "12 (a\nb) S"} {
		p, err := parseStat([]byte(text + rest))
		if err != nil || (p != process{state: 'S', parent: 7, session: 9, flags: 4194308, threads: 24 - 2 - 25}) && p.session != 9 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for _, text := range []string{"", "12 (web", "12 (web) S 1 2 3", ")"} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q is understood", text)
		}
	}
}
