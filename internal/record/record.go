//go:build linux

package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

const (
	magic      = "SDR1"
	headerSize = 24
	kindWhole  = 0
	kindChange = 1
	// slack is how much longer than the table twice a file may become.
	slack = 256 << 10
	// maxBody bounds one frame, so that a length that is garbage allocates nothing.
	maxBody = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNone means that neither file holds a table.
var ErrNone = errors.New("record: no table in either file")

// Table is a table and its two files, which it owns until Close. It belongs to one
// goroutine, and its files to one writer at a time.
type Table struct {
	files    [2]*fdpass.File
	active   int
	sequence uint64
	end      int64 // where the next frame of the active file goes
	size     int64 // about what the whole table takes
	broken   bool  // the active file does not hold all; the next Write writes the whole table
	values   map[string][]byte
}

// New makes an empty table. Errors: EMFILE, ENFILE, ENOMEM.
func New() (*Table, error) {
	t := &Table{values: map[string][]byte{}, broken: true}
	for i := range t.files {
		fd, err := unix.MemfdCreate("record", unix.MFD_CLOEXEC)
		if err != nil {
			_ = t.Close()
			return nil, fmt.Errorf("memfd_create: %w", err)
		}
		t.files[i] = fdpass.NewFile(fd)
	}
	return t, t.Write(nil)
}

// Open takes the two files of a table, in any order, to go on writing it. Errors:
// ErrNone, those of pread(2); the files stay the caller's then.
func Open(a, b *fdpass.File) (*Table, error) {
	t := &Table{files: [2]*fdpass.File{a, b}}
	var err error
	if t.active, t.sequence, t.values, err = newest(a, b); err != nil {
		return nil, err
	}
	for k, v := range t.values {
		t.size += entrySize(k, v)
	}
	t.broken = true // behind the last valid frame may be half of one
	return t, nil
}

// Read returns the table that two files hold, and changes nothing. Errors as Open.
func Read(a, b *fdpass.File) (map[string][]byte, error) {
	_, _, values, err := newest(a, b)
	return values, err
}

// newest says which file counts, the sequence of its last frame and the table.
func newest(files ...*fdpass.File) (active int, sequence uint64, values map[string][]byte, err error) {
	for i, f := range files {
		data, rerr := contents(f)
		if rerr != nil {
			return 0, 0, nil, rerr
		}
		if v, seq, ok := parse(data); ok && (values == nil || seq > sequence) {
			active, sequence, values = i, seq, v
		}
	}
	if values == nil {
		err = ErrNone
	}
	return active, sequence, values, err
}

func contents(f *fdpass.File) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return nil, fmt.Errorf("record: fstat: %w", err)
	}
	data := make([]byte, st.Size)
	for got := 0; got < len(data); {
		n, err := unix.Pread(f.Fd(), data[got:], int64(got))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("record: pread: %w", err)
		}
		if n == 0 {
			return data[:got], nil
		}
		got += n
	}
	return data, nil
}

// Files lends the two files, for whoever is to keep them open.
func (t *Table) Files() [2]*fdpass.File { return t.files }

// Get returns a value, which is not to be changed; false if there is none.
func (t *Table) Get(name string) ([]byte, bool) {
	v, ok := t.values[name]
	return v, ok
}

// All returns a copy of the table. The values are not to be changed.
func (t *Table) All() map[string][]byte { return maps.Clone(t.values) }

// Write changes the table by the entries of changes, all or none of which another
// process will find; a nil value removes the name. The table keeps the values, which
// are not to be changed any more. It takes a few microseconds and never waits.
//
// Errors: ENOSPC and ENOMEM, and what write(2) gives else. The table in memory has
// changed then, and the next Write that succeeds writes all of it.
func (t *Table) Write(changes map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		if old, ok := t.values[name]; ok {
			t.size -= entrySize(name, old)
		}
		if v := changes[name]; v == nil {
			delete(t.values, name)
		} else {
			t.values[name] = v
			t.size += entrySize(name, v)
		}
	}
	if t.broken || t.end > 2*t.size+slack {
		return t.writeWhole()
	}
	if len(changes) == 0 {
		return nil
	}
	f := frame(kindChange, t.sequence+1, changes)
	if err := writeAt(t.files[t.active], f, t.end); err != nil {
		t.broken = true
		return err
	}
	t.sequence++
	t.end += int64(len(f))
	return nil
}

// writeWhole writes the whole table to the file that does not count, which then does.
func (t *Table) writeWhole() error {
	t.broken = true
	other := 1 - t.active
	f := frame(kindWhole, t.sequence+1, t.values)
	if err := unix.Ftruncate(t.files[other].Fd(), 0); err != nil {
		return fmt.Errorf("record: ftruncate: %w", err)
	}
	if err := writeAt(t.files[other], f, 0); err != nil {
		return err
	}
	t.active, t.end, t.broken = other, int64(len(f)), false
	t.sequence++
	_ = unix.Ftruncate(t.files[1-other].Fd(), 0) // gives its memory back
	return nil
}

// Close closes the files. Who else has them open keeps the table.
func (t *Table) Close() error {
	fdpass.CloseAll(t.files[:])
	return nil
}

func writeAt(f *fdpass.File, data []byte, at int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(f.Fd(), data, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("record: pwrite: %w", err)
		}
		data, at = data[n:], at+int64(n)
	}
	return nil
}

func entrySize(name string, value []byte) int64 { return int64(len(name) + len(value) + 4) }

// frame encodes entries, a nil value as removed.
func frame(kind uint32, sequence uint64, entries map[string][]byte) []byte {
	size := headerSize
	for name, v := range entries {
		size += len(name) + len(v) + 2*binary.MaxVarintLen32
	}
	f := make([]byte, headerSize, size)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		v := entries[name]
		f = binary.AppendUvarint(f, uint64(len(name)))
		f = append(f, name...)
		if v == nil {
			f = binary.AppendUvarint(f, 0)
			continue
		}
		f = binary.AppendUvarint(f, uint64(len(v))+1)
		f = append(f, v...)
	}
	copy(f, magic)
	binary.LittleEndian.PutUint32(f[8:], kind)
	binary.LittleEndian.PutUint32(f[12:], uint32(len(f)-headerSize))
	binary.LittleEndian.PutUint64(f[16:], sequence)
	binary.LittleEndian.PutUint32(f[4:], crc32.Checksum(f[8:], castagnoli))
	return f
}

// parse returns the table after the last valid frame; false when the first is not
// valid.
func parse(data []byte) (values map[string][]byte, sequence uint64, ok bool) {
	for {
		kind, seq, body, rest, valid := next(data)
		switch {
		case !valid, (kind == kindWhole) == ok, ok && seq != sequence+1:
			return values, sequence, ok
		case !ok:
			values = map[string][]byte{}
		}
		if !apply(values, body) { // which only a writer that is wrong can make, with a valid check
			return nil, 0, false
		}
		sequence, ok, data = seq, true, rest
	}
}

// next takes one frame.
func next(data []byte) (kind uint32, sequence uint64, body, rest []byte, ok bool) {
	if len(data) < headerSize || string(data[:4]) != magic {
		return 0, 0, nil, nil, false
	}
	length := binary.LittleEndian.Uint32(data[12:])
	if length > maxBody || int(length) > len(data)-headerSize {
		return 0, 0, nil, nil, false
	}
	end := headerSize + int(length)
	if crc32.Checksum(data[8:end], castagnoli) != binary.LittleEndian.Uint32(data[4:]) {
		return 0, 0, nil, nil, false
	}
	return binary.LittleEndian.Uint32(data[8:]), binary.LittleEndian.Uint64(data[16:]), data[headerSize:end], data[end:], true
}

// apply changes values by the entries of a body; false when it is malformed.
func apply(values map[string][]byte, body []byte) bool {
	for len(body) > 0 {
		name, rest, ok := cut(body, 0)
		if !ok {
			return false
		}
		n, _ := binary.Uvarint(rest)
		value, rest, ok := cut(rest, 1)
		if !ok {
			return false
		}
		if n == 0 {
			delete(values, string(name))
		} else {
			values[string(name)] = value
		}
		body = rest
	}
	return true
}

// cut takes a length, from which less is subtracted, and so many bytes.
func cut(data []byte, less uint64) (field, rest []byte, ok bool) {
	n, width := binary.Uvarint(data)
	if width <= 0 {
		return nil, nil, false
	}
	if n < less {
		return nil, data[width:], true
	}
	if n -= less; n > uint64(len(data)-width) {
		return nil, nil, false
	}
	end := width + int(n)
	return data[width:end:end], data[end:], true
}
