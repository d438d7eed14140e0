package master

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/systemd"
)

// What the next master needs and has a descriptor is kept by somebody who outlives this
// one: systemd, or the keeper. Each file has a name; those that systemd passes for other
// reasons do not begin like these.
const keptPrefix = "supervisord."

func keptName(parts ...any) string {
	return keptPrefix + strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintln(parts...), " ", "."), "\n")
}

func linkName(id proto.WorkerID) string                   { return keptName("link", id) }
func nodeName(id proto.WorkerID) string                   { return keptName("node", id) }
func notifyName(id proto.WorkerID) string                 { return keptName("notify", id) }
func outputName(id proto.WorkerID) string                 { return keptName("output", id) }
func pidName(id proto.WorkerID) string                    { return keptName("pid", id) }
func nodePageName(id proto.WorkerID) string               { return keptName("nodepage", id) }
func handleName(id proto.HandleID) string                 { return keptName("handle", id) }
func memberName(id proto.HandleID, n int) string          { return keptName("member", id, n) }
func programName(launch uint64) string                    { return keptName("program", launch) }
func directoryName(launch uint64) string                  { return keptName("directory", launch) }
func countName(h proto.HandleID, w proto.WorkerID) string { return keptName("count", h, w) }
func partName(p part, what string) string {
	return keptName("part", p.handle, p.worker, p.number, what)
}

const (
	recordName  = keptPrefix + "record"
	controlName = keptPrefix + "control"
)

// lender lends a descriptor while use runs, and does not call it when there is none.
type lender func(use func(fd int))

func lendFile(f *fdpass.File) lender {
	return func(use func(fd int)) {
		if fd := f.Fd(); fd >= 0 {
			use(fd)
		}
	}
}

func lendConn(c interface {
	SyscallConn() (syscall.RawConn, error)
}) lender {
	return func(use func(fd int)) {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { use(int(fd)) })
		}
	}
}

// store gives files to whoever keeps them. It knows them all, also where nobody keeps
// them: an upgrade takes them along. It may be used from any goroutine; what it is given
// must be dropped before it is closed.
type store struct {
	n    *systemd.Notifier
	log  hclog.Logger
	kept bool // somebody keeps them

	mu      sync.Mutex
	lenders map[string]lender
	behind  []func() error // could not be sent at once; in order
}

// behindEvery is how soon a manager that does not read is tried again.
const behindEvery = 10 * time.Millisecond

// put keeps a file under a name.
func (s *store) put(name string, l lender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lenders[name] = l
	if !s.kept {
		return
	}
	l(func(fd int) {
		f := fdpass.NewFile(fd)
		defer f.Release()
		err := errBehind
		if len(s.behind) == 0 {
			err = s.n.Store(name, f)
		}
		if !isBehind(err) {
			s.complain(name, err)
			return
		}
		dup, err := f.Dup()
		if err != nil {
			s.complain(name, err)
			return
		}
		s.later(func() error {
			err := s.n.Store(name, dup)
			if !isBehind(err) {
				_ = dup.Close()
				s.complain(name, err)
			}
			return err
		})
	})
}

// forget ends keeping what this master has not given, whatever its name.
func (s *store) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.lenders[name]; !ok && s.kept {
		s.unstore(name)
	}
}

// resume takes over what an earlier master gave to be kept.
func (s *store) resume(name string, l lender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lenders[name] = l
}

// drop ends keeping what has a name. It is there for names that nobody has, too.
func (s *store) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(name)
}

// dropAll ends keeping every file whose name is this, or begins with it and a dot.
func (s *store) dropAll(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.lenders)) {
		for _, n := range names {
			if name == n || strings.HasPrefix(name, n+".") {
				s.dropLocked(name)
			}
		}
	}
}

func (s *store) dropLocked(name string) {
	if _, ok := s.lenders[name]; !ok {
		return
	}
	delete(s.lenders, name)
	if s.kept {
		s.unstore(name)
	}
}

// unstore is called with mu held.
func (s *store) unstore(name string) {
	err := errBehind
	if len(s.behind) == 0 {
		err = s.n.Unstore(name)
	}
	if !isBehind(err) {
		s.complain(name, err)
		return
	}
	s.later(func() error {
		err := s.n.Unstore(name)
		if !isBehind(err) {
			s.complain(name, err)
		}
		return err
	})
}

var errBehind = errors.New("others wait")

func isBehind(err error) bool {
	return err == errBehind || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETOOMANYREFS) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// later is called with mu held.
func (s *store) later(send func() error) {
	s.behind = append(s.behind, send)
	if len(s.behind) == 1 {
		time.AfterFunc(behindEvery, s.catchUp)
	}
}

// catchUp sends what could not be sent.
func (s *store) catchUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.behind) > 0 {
		if isBehind(s.behind[0]()) {
			time.AfterFunc(behindEvery, s.catchUp)
			return
		}
		s.behind = s.behind[1:]
	}
}

func (s *store) complain(name string, err error) {
	if err != nil {
		s.log.Warn("not kept for the case of a crash", "name", name, "err", err)
	}
}

// clear ends keeping everything: the next master is to begin anew.
func (s *store) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept {
		s.unstore(recordName) // which has two files and one name
	}
	for _, name := range slices.Sorted(maps.Keys(s.lenders)) {
		s.dropLocked(name)
	}
}

// watchKeeper tells when the keeper has died: this master goes on, and the next crash is
// the last. It ends with the Notifier.
func (m *Master) watchKeeper() {
	if m.notify.Gone() != nil {
		return
	}
	m.call(func() {
		m.store.lose()
		m.degraded = "the keeper is gone: a crash of the master would be one of the service"
		m.log.Error("degraded", "cause", m.degraded)
	})
}

// lose notes that nobody keeps anything any more.
func (s *store) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = false
}

// kept are the files that an earlier master had kept, until somebody takes them.
type kept map[string][]*fdpass.File

// LeftBehind reports whether an earlier master of this service has left its record and its
// sockets: New takes over then. It looks at what [systemd.Inherited] will return, and so
// is to be called before New.
func LeftBehind() bool {
	return slices.Contains(strings.Split(os.Getenv("LISTEN_FDNAMES"), ":"), recordName)
}

// separate takes out of what was inherited what an earlier master had kept.
func separate(inherited []systemd.Socket) (kept, []systemd.Socket) {
	k := kept{}
	var others []systemd.Socket
	for _, s := range inherited {
		if strings.HasPrefix(s.Name, keptPrefix) {
			k[s.Name] = append(k[s.Name], s.File)
		} else {
			others = append(others, s)
		}
	}
	return k, others
}

// take returns the file of a name, nil when there is none. Of several the last is the
// newest.
func (k kept) take(name string) *fdpass.File {
	list := k[name]
	delete(k, name)
	if len(list) == 0 {
		return nil
	}
	fdpass.CloseAll(list[:len(list)-1])
	return list[len(list)-1]
}

func (k kept) has(name string) bool { return len(k[name]) > 0 }

// close closes what nobody took.
func (k kept) close() {
	for name, list := range k {
		fdpass.CloseAll(list)
		delete(k, name)
	}
}
