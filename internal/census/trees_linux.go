package census

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Orphans says how to know a process of a worker that made a session of its own
// (setsid(2)) and whose parent has ended, as daemons do. The zero value: it is not
// known.
type Orphans struct {
	// Lines has for each leader the variable, as "NAME=VALUE", that all processes of
	// its worker have in their environment and nobody else has. The environment is
	// what the process was started with, unless it wrote over it, as programs do that
	// set their own title.
	Lines map[int]string
	// Reaper is the process that becomes the parent of orphans, beside process 1: the
	// nearest that called prctl(PR_SET_CHILD_SUBREAPER). 0: none.
	Reaper int
}

// Trees finds the processes of each worker, in ascending order, by the process that
// leads the worker's session. It looks at all processes of the machine once:
//
//	session of the leader                    ──▶ its worker
//	else parent that is some worker's        ──▶ the parent's
//	else parent is process 1 or the reaper, ─┐
//	or has ended, and environment has a line ┴─▶ the line's
//
// Every leader has an entry, empty when no process of it is left; a process is in
// one tree only, and one that has ended (a zombie) in none. A leader must not have
// been waited for, or its number may be another's.
//
// It does not block. Errors: EACCES when /proc hides a leader (the option hidepid,
// proc(5); other processes that it hides are not found); ENOENT when there is no /proc; EMFILE and the like.
func Trees(leaders []int, orphans Orphans) (map[int][]int, error) {
	trees := make(map[int][]int, len(leaders))
	c := count{orphans: orphans, tree: make(map[int]int), leaderOf: make(map[string]int, len(orphans.Lines))}
	for _, leader := range leaders {
		trees[leader], c.tree[leader] = nil, leader
		if line := orphans.Lines[leader]; line != "" {
			c.leaderOf[line] = leader
		}
	}
	var err error
	if c.processes, err = processes(); err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	for pid, p := range c.processes {
		if tree := c.treeOf(pid); tree != 0 && (!p.ended() || p.threads > 1) {
			trees[tree] = append(trees[tree], pid)
		}
	}
	for leader, pids := range trees {
		slices.Sort(pids)
		if _, seen := c.processes[leader]; seen {
			continue
		}
		if _, err := new(reader).process(procPath(leader)); err != nil && isHidden(leader, err) {
			return nil, fmt.Errorf("cannot list the processes of %d: /proc hides them: %w (see hidepid in proc(5))", leader, unix.EACCES)
		}
	}
	return trees, nil
}

// count is one call of Trees.
type count struct {
	orphans   Orphans
	leaderOf  map[string]int // by line
	processes map[int]process
	tree      map[int]int // by process; 0 for those of no worker
}

// treeOf returns the leader of the tree that a process is in, or 0.
func (c *count) treeOf(pid int) int {
	if tree, known := c.tree[pid]; known {
		return tree
	}
	// Now, because a number that was used twice during the scan can make a circle.
	c.tree[pid] = 0
	p, ok := c.processes[pid]
	if !ok || p.parent == 0 { // process 1, threads of the kernel
		return 0
	}
	tree := 0
	_, hasParent := c.processes[p.parent]
	switch session := c.tree[p.session]; {
	case session != 0 && session == p.session:
		tree = session
	case p.parent == 1 || p.parent == c.orphans.Reaper || !hasParent:
		tree = c.byLine(pid)
	default:
		tree = c.treeOf(p.parent)
	}
	c.tree[pid] = tree
	return tree
}

// byLine looks for a line in the environment of a process. One whose environment
// we may not read is of no worker.
func (c *count) byLine(pid int) int {
	if len(c.leaderOf) == 0 {
		return 0
	}
	environ, err := os.ReadFile(procPath(pid) + "/environ")
	if err != nil {
		return 0
	}
	for line := range bytes.SplitSeq(environ, []byte{0}) {
		if leader := c.leaderOf[string(line)]; leader != 0 {
			return leader
		}
	}
	return 0
}

func processes() (map[int]process, error) {
	dir, err := openDir("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }()
	r, found := new(reader), make(map[int]process)
	var failed error
	err = r.each(dir, func(pid int, _ *byte) {
		switch p, err := r.process(procPath(pid)); {
		case err == nil:
			found[pid] = p
		case !isGone(err) && !isDenied(err):
			failed = err
		}
	})
	if err == nil {
		err = failed
	}
	return found, err
}
