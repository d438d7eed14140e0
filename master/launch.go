package master

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proc"
	"github.com/f72e338e/supervisord/internal/proto"
)

// launch is how the workers of one generation are started. It pins the executable
// and the working directory by open descriptors: a `current` symlink that is
// turned, or a file that is replaced, changes nothing for a generation that
// runs, and a rollback starts what it started before.
type launch struct {
	pool config.Pool
	dir  *fdpass.File // nil where the directory differs from worker to worker
	exe  *fdpass.File // nil when it was not found, or is no binary: then the path counts
	id   identity     // of the executable
	ways []string     // how connections of the pool's listeners reach it, see waysOf
	user []string     // HOME, USER and LOGNAME of the pool's user; nil without one
	path string       // of the executable, for a look whether it is still the same
}

// identity tells whether a file is the same as before.
type identity struct {
	dev, ino    uint64
	size, mtime int64
}

// launchPiece is a launch in the record; its files are kept beside.
type launchPiece struct {
	Pool     config.Pool `json:"pool"`
	Identity [4]int64    `json:"identity"`
	Ways     []string    `json:"ways,omitempty"`
	User     []string    `json:"user,omitempty"`
	Path     string      `json:"path,omitempty"`
}

func (r *launch) piece() launchPiece {
	return launchPiece{Pool: r.pool, Identity: [4]int64{int64(r.id.dev), int64(r.id.ino), r.id.size, r.id.mtime}, Ways: r.ways, User: r.user, Path: r.path}
}

// resume takes a launch of an earlier master over, with the files that it held open.
func (l *launches) resume(id uint64, p launchPiece, program, directory *fdpass.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = max(l.next, id+1)
	l.byID[id] = &launch{pool: p.Pool, dir: directory, exe: program, ways: p.Ways, user: p.User, path: p.Path,
		id: identity{uint64(p.Identity[0]), uint64(p.Identity[1]), p.Identity[2], p.Identity[3]}}
}

// launches holds the launch records that generations refer to by number. Commands
// plan in their own goroutines, so it is locked.
type launches struct {
	mu   sync.Mutex
	next uint64
	byID map[uint64]*launch
}

func (l *launches) init() { l.next, l.byID = 1, map[uint64]*launch{} }

func (l *launches) get(id uint64) *launch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

func (l *launches) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.byID[id]; r != nil {
		r.close()
		delete(l.byID, id)
	}
}

func (r *launch) close() {
	_ = r.dir.Close()
	_ = r.exe.Close()
}

// plan turns a configuration into what the core must know, with a launch record
// for each pool. It looks at files, and may block as long as they do.
func (l *launches) plan(cfg *config.Config) (core.Config, error) {
	out := core.Config{MaxHandles: maxHandles()}
	for _, c := range cfg.Listeners {
		ln := core.Listener{Name: c.Name, Spec: c.Spec, Policy: c.Policy}
		if c.Exclusive {
			for i := range cfg.Pools {
				for _, name := range cfg.Pools[i].Listeners {
					if name == c.Name {
						ln.Exclusive = cfg.Pools[i].Name + "/0"
					}
				}
			}
		}
		out.Listeners = append(out.Listeners, ln)
	}
	for i := range cfg.Pools {
		spec, err := l.planPool(cfg.Pools[i], waysOf(cfg, cfg.Pools[i].Listeners)...)
		if err != nil {
			for _, p := range out.Pools {
				l.forget(p.Launch)
			}
			return core.Config{}, err
		}
		out.Pools = append(out.Pools, spec)
	}
	return out, nil
}

// maxHandles is how many sockets workers may ask for: a quarter of the descriptors
// that the master may have. The rest is for links, channels, output and commands.
func maxHandles() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 256
	}
	return int(min(lim.Cur/4, 1<<20))
}

// waysOf returns the listeners of a pool that are not shared, with what a worker
// holds of them: a channel, or a member of its own. A change between the three is a
// reason to replace it.
func waysOf(cfg *config.Config, names []string) []string {
	var out []string
	for _, l := range cfg.Listeners {
		switch {
		case !slices.Contains(names, l.Name):
		case proto.IsDispatched(l.Policy):
			out = append(out, l.Name+": channel")
		case l.Policy == proto.PolicyReusePort:
			out = append(out, l.Name+": member")
		}
	}
	return out
}

// planPool plans one pool.
func (l *launches) planPool(p config.Pool, ways ...string) (core.PoolSpec, error) {
	r := &launch{pool: p, user: userEnv(p.UID), ways: ways}
	if err := r.pin(); err != nil {
		return core.PoolSpec{}, err
	}
	l.mu.Lock()
	id := l.next
	l.next++
	l.byID[id] = r
	l.mu.Unlock()
	restart, roll := p.Restart, p.Rollout
	uid, gid := p.UID, p.GID
	if uid < 0 {
		uid = os.Getuid()
	}
	if gid < 0 {
		gid = os.Getgid()
	}
	return core.PoolSpec{
		Name: p.Name, Desired: p.Workers, Fingerprint: r.fingerprint(), Launch: id, Protocol: p.Protocol, StopSignal: p.StopSignalNumber,
		MaxConnections: int64(p.MaxConnections),
		Listeners:      p.Listeners, Allow: p.BindAllow, AllowSet: p.BindAllowSet,
		Confine: proto.Confine{Directory: p.WorkingDirectory, UID: uid, GID: gid},
		Ready:   p.Ready, ReadyDelay: p.ReadyDelay, ReadyOnly: p.ReadySet && p.Ready != core.ReadyNotify,
		Timeouts: core.Timeouts{Start: p.StartTimeout, MinUptime: p.MinUptime, Graceful: p.GracefulTimeout, Kill: p.KillTimeout, Drain: p.DrainDelay, Linger: p.Linger, Heartbeat: p.Heartbeat},
		Restart:  core.RestartPolicy{Policy: restart, Delay: p.RestartDelay, MaxDelay: p.RestartMaxDelay, Max: p.MaxRestarts, Window: p.RestartWindow, OnLimit: p.OnLimit},
		Rollout: core.RolloutPolicy{MaxSurge: roll.MaxSurge, MaxUnavailable: roll.MaxUnavailable, Monitor: roll.Monitor, Halt: roll.OnFailure == "halt",
			Oldest: roll.Order == "oldest", MaxGenerations: roll.MaxGenerations, GenerationTimeout: roll.GenerationTimeout},
	}, nil
}

// pin opens the directory and the executable. A directory that is missing, or an
// executable that cannot be found, is left to the start of the worker to report:
// other pools are not concerned, and either may be there by then.
func (r *launch) pin() error {
	dir := r.pool.WorkingDirectory
	if !hasPlaceholder(dir) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			r.dir = fdpass.NewFile(fd)
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			return fmt.Errorf("cannot open the working directory %s: %w (raise the limit of open files)", dir, err)
		}
	}
	r.path = r.executable(dir)
	if r.path == "" || hasPlaceholder(r.path) {
		return nil
	}
	fd, err := unix.Open(r.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if fd, err = unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return nil
		}
	}
	r.exe = fdpass.NewFile(fd)
	r.id, _ = identityOf(fd)
	var magic [2]byte
	if n, _ := unix.Pread(fd, magic[:], 0); n == 2 && magic == [2]byte{'#', '!'} {
		// A script's interpreter cannot open it by a close-on-exec descriptor
		// (execveat(2), "BUGS"): the path counts.
		_ = r.exe.Close()
		r.exe = nil
	}
	return nil
}

// executable returns the path that the command's first word leads to, or "".
func (r *launch) executable(dir string) string {
	name := r.pool.Command[0]
	switch {
	case filepath.IsAbs(name):
		return name
	case strings.Contains(name, "/"):
		return filepath.Join(dir, name)
	}
	path := r.variable("PATH")
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "."
		}
		full := filepath.Join(d, name)
		if !filepath.IsAbs(full) {
			full = filepath.Join(dir, full)
		}
		if unix.Access(full, unix.X_OK) == nil {
			if fi, err := os.Stat(full); err == nil && !fi.IsDir() {
				return full
			}
		}
	}
	return ""
}

func identityOf(fd int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, err
	}
	return identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano()}, nil
}

// fingerprint changes when workers started now would differ from those before:
// the configuration, or the identity of the executable or the directory.
func (r *launch) fingerprint() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%+v\n%q\n", r.pool.Fingerprint(), r.id, r.ways)
	if fd := r.dir.Fd(); fd >= 0 {
		if id, err := identityOf(fd); err == nil {
			_, _ = fmt.Fprintf(h, "%d %d\n", id.dev, id.ino)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// pinned returns the executable to start by descriptor, nil when its path still
// leads to it.
func (r *launch) pinned() *fdpass.File {
	if r.exe == nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Stat(r.path, &st) == nil && uint64(st.Dev) == r.id.dev && st.Ino == r.id.ino {
		return nil
	}
	return r.exe
}

func hasPlaceholder(s string) bool {
	return strings.Contains(s, "{slot}") || strings.Contains(s, "{worker}")
}

// order returns what package proc is to start for one worker.
func (r *launch) order(a core.Spawn) proc.Launch {
	fill := strings.NewReplacer("{slot}", strconv.Itoa(a.Slot), "{worker}", strconv.FormatUint(uint64(a.Worker), 10))
	p := &r.pool
	o := proc.Launch{
		Dir: fill.Replace(p.WorkingDirectory), DirFile: r.dir, Exec: r.pinned(), UID: p.UID, GID: p.GID, Groups: p.Groups, Umask: int(p.Umask),
		Nice: p.Limits.Nice, Scheduling: p.Limits.Scheduling, SchedulingWish: !p.Limits.SchedulingSet, Slice: p.Limits.Slice, OOMScoreAdj: p.Limits.OOMScoreAdj, CPUAffinity: p.Limits.CPUAffinity,
		NoNewPrivs: p.Limits.NoNewPrivs, Capabilities: p.Limits.Capabilities,
	}
	for _, arg := range p.Command {
		o.Command = append(o.Command, fill.Replace(arg))
	}
	for _, kv := range r.environment() {
		o.Env = append(o.Env, fill.Replace(kv))
	}
	o.Env = append(o.Env,
		"SUPERVISORD_POOL="+a.Pool, "SUPERVISORD_SLOT="+strconv.Itoa(a.Slot),
		"SUPERVISORD_WORKER_ID="+strconv.FormatUint(uint64(a.Worker), 10), "SUPERVISORD_GENERATION="+strconv.FormatUint(a.Gen, 10))
	for resource, value := range map[int]*uint64{
		unix.RLIMIT_NOFILE: p.Limits.Nofile, unix.RLIMIT_NPROC: p.Limits.Nproc, unix.RLIMIT_CORE: p.Limits.Core,
		unix.RLIMIT_MEMLOCK: p.Limits.Memlock, unix.RLIMIT_STACK: p.Limits.Stack, unix.RLIMIT_AS: p.Limits.AS,
	} {
		if value != nil {
			o.Limits = append(o.Limits, proc.Limit{Resource: resource, Soft: *value, Hard: *value})
		}
	}
	return o
}
