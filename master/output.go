package master

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
)

const (
	tailLines   = 20  // kept of each worker
	tailLine    = 512 // bytes kept of a line
	tailWorkers = 64  // workers that ended and whose lines are kept
	maxLine     = 16 << 10
)

// output is where a worker writes: a pipe that the master reads, or with "inherit"
// the master's own descriptors.
type output struct {
	label  string
	read   *os.File // nil with inherit
	write  *fdpass.File
	ended  chan struct{}
	toFile string // of "file:PATH"

	mu   sync.Mutex // reopening meets writing
	copy *os.File   // toFile, open
	over bool       // closed for good
}

// newOutput is an output without a pipe.
func newOutput(m *Master, a core.Spawn, r *launch) (*output, error) {
	o := &output{label: a.Pool + "/" + strconv.Itoa(a.Slot), ended: make(chan struct{})}
	kind, path, _ := strings.Cut(r.pool.Output, ":")
	if kind == "file" {
		path = strings.NewReplacer("{slot}", strconv.Itoa(a.Slot), "{worker}", strconv.FormatUint(uint64(a.Worker), 10)).Replace(path)
		f, err := openAppend(path)
		if err != nil {
			return o, fmt.Errorf("cannot open its output file: %w", err)
		}
		o.copy, o.toFile = f, path
		m.files.Store(o, nil)
	}
	return o, nil
}

func openOutput(m *Master, a core.Spawn, r *launch) (*output, error) {
	o, err := newOutput(m, a, r)
	if err != nil || r.pool.Output == "inherit" {
		return o, err
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		o.close()
		return nil, fmt.Errorf("cannot make a pipe for its output: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // our end only: a pipe's ends are two open files
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
		o.close()
		return nil, err
	}
	o.read = os.NewFile(uintptr(fds[0]), "output of "+o.label)
	o.write = fdpass.NewFile(fds[1])
	return o, nil
}

// files lends what becomes the worker's standard output and error.
func (o *output) files() (stdout, stderr *fdpass.File) {
	if o.read == nil {
		return fdpass.NewFile(1), fdpass.NewFile(2)
	}
	return o.write, o.write
}

// started closes the write end, so that the pipe ends with the worker.
func (o *output) started() { _ = o.write.Close() }

func (o *output) close() {
	_ = o.write.Close()
	if o.read != nil {
		_ = o.read.Close()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	if o.copy != nil {
		_ = o.copy.Close()
	}
}

// pumpOutput reads a worker's output until it ends, whatever becomes of the lines.
func (m *Master) pumpOutput(id proto.WorkerID, o *output) {
	defer m.pumps.Done()
	defer close(o.ended)
	defer o.close()
	defer m.files.Delete(o)
	if o.read == nil {
		m.tails.add(id, "(output is not captured: output = \"inherit\")")
		return
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // what outlives the worker and holds its pipe does not hold the master
		select {
		case <-m.done:
			_ = o.read.Close()
		case <-stop:
		}
	}()
	br := bufio.NewReaderSize(o.read, 4<<10)
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		if errors.Is(err, bufio.ErrBufferFull) && len(line) < maxLine {
			continue
		}
		if len(line) > 0 {
			m.outputLine(id, o, line)
			line = line[:0]
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (m *Master) outputLine(id proto.WorkerID, o *output, line []byte) {
	text := strings.TrimRight(string(line), "\r\n")
	m.tails.add(id, text)
	if o.copy != nil {
		if !o.writeFile(line) {
			m.output.lost.Add(1)
		}
		return
	}
	if m.opts.Label {
		_, _ = m.output.Write([]byte(o.label + " | " + printable(text) + "\n"))
		return
	}
	if line[len(line)-1] != '\n' {
		line = append(line, '\n')
	}
	_, _ = m.output.Write(line)
}

// printable escapes what a terminal would obey.
func printable(s string) string {
	if !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isControl(r rune) bool { return r != '\t' && (r < 0x20 || r >= 0x7f && r < 0xa0) }

// writeFile appends a line to the pool's own file. A full disk loses lines, which
// are counted, and nothing else.
func (o *output) writeFile(line []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.copy.Write(line)
	return err == nil
}

// reopenFiles opens the files of all workers' output anew, for whoever moved them.
func (m *Master) reopenFiles() {
	m.files.Range(func(key, _ any) bool {
		o := key.(*output)
		f, err := openAppend(o.toFile)
		if err != nil {
			m.log.Warn("output file not reopened", "addr", o.toFile, "err", err)
			return true
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.over {
			_ = f.Close()
			return true
		}
		_ = o.copy.Close()
		o.copy = f
		return true
	})
}

func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
}

// tails keeps the last lines of each worker, and for a while of those that ended.
type tails struct {
	mu    sync.Mutex
	lines map[proto.WorkerID][]string
	ended []proto.WorkerID
}

func newTails() *tails { return &tails{lines: map[proto.WorkerID][]string{}} }

func (t *tails) add(id proto.WorkerID, line string) {
	if len(line) > tailLine {
		line = line[:tailLine] + " ..."
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := append(t.lines[id], line)
	if len(kept) > tailLines {
		kept = slices.Delete(kept, 0, len(kept)-tailLines)
	}
	t.lines[id] = kept
}

// of returns a copy of a worker's last lines.
func (t *tails) of(id proto.WorkerID) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lines[id])
}

// end says that the worker has ended; its lines are kept until enough others have.
func (t *tails) end(id proto.WorkerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = append(t.ended, id)
	for len(t.ended) > tailWorkers {
		delete(t.lines, t.ended[0])
		t.ended = t.ended[1:]
	}
}
