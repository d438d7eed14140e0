//go:build linux

package record

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/f72e338e/supervisord/fdpass"
)

func newTable(t testing.TB) *Table {
	t.Helper()
	table, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// dups are what somebody else keeps open.
func dups(t interface{ Fatal(...any) }, table *Table) (a, b *fdpass.File) {
	for i, f := range table.Files() {
		d, err := f.Dup()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			a = d
		} else {
			b = d
		}
	}
	return a, b
}

func write(t interface{ Fatal(...any) }, table *Table, changes map[string][]byte) {
	if err := table.Write(changes); err != nil {
		t.Fatal(err)
	}
}

// TestTable: whatever is written, another one that opens the files finds it, however
// often they are opened and in whichever order.
func TestTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table, err := New()
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = table.Close() }()
		want := map[string][]byte{}
		for range rapid.IntRange(0, 40).Draw(rt, "writes") {
			changes := map[string][]byte{}
			for range rapid.IntRange(0, 4).Draw(rt, "entries") {
				name := rapid.StringN(0, 3, -1).Draw(rt, "name")
				var value []byte
				if rapid.Bool().Draw(rt, "set") {
					value = bytes.Repeat([]byte{byte(len(name))}, rapid.SampledFrom([]int{0, 1, 127, 128, 20_000}).Draw(rt, "size"))
				}
				changes[name] = value
			}
			for name, v := range changes {
				if v == nil {
					delete(want, name)
				} else {
					want[name] = v
				}
			}
			write(rt, table, changes)
			if rapid.IntRange(0, 5).Draw(rt, "reopen") == 0 {
				a, b := dups(rt, table)
				_ = table.Close()
				if rapid.Bool().Draw(rt, "swapped") {
					a, b = b, a
				}
				if table, err = Open(a, b); err != nil {
					rt.Fatal(err)
				}
			}
			files := table.Files()
			got, err := Read(files[0], files[1])
			if err != nil {
				rt.Fatal(err)
			}
			if !maps.EqualFunc(want, got, bytes.Equal) || !maps.EqualFunc(want, table.All(), bytes.Equal) {
				rt.Fatalf("want %d entries, found %d, have %d", len(want), len(got), len(table.All()))
			}
		}
	})
}

// TestTorn: a write that was cut off anywhere, or of which anything is wrong, leaves
// the table of before.
func TestTorn(t *testing.T) {
	for _, whole := range []bool{false, true} {
		table := newTable(t)
		write(t, table, map[string][]byte{"a": []byte("1"), "b": []byte("2")})
		before := table.All()
		active, end := table.active, table.end
		if whole {
			active, end = 1-table.active, 0
			table.broken = true
		}
		write(t, table, map[string][]byte{"a": nil, "c": bytes.Repeat([]byte("x"), 300)})
		full, err := contents(table.files[active])
		if err != nil {
			t.Fatal(err)
		}
		other := frame(kindWhole, 2, before) // what a whole table was made from is not given back yet
		for cut := int(end); cut < len(full); cut++ {
			for _, data := range [][]byte{full[:cut], flip(full, cut)} {
				a, b := memory(t, data), memory(t, nil)
				if whole {
					_ = b.Close()
					b = memory(t, other)
				}
				got, err := Read(a, b)
				if err != nil {
					t.Fatalf("whole %v, at %d of %d: %v", whole, cut, len(full), err)
				}
				if !maps.EqualFunc(got, before, bytes.Equal) {
					t.Fatalf("whole %v, at %d of %d: %v", whole, cut, len(full), got)
				}
				_, _ = a.Close(), b.Close()
			}
		}
	}
}

func flip(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 0x40
	return out
}

func memory(t *testing.T, data []byte) *fdpass.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := fdpass.NewFile(fd)
	if err := writeAt(f, data, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFull: without memory nothing is lost, and the next write that succeeds has all.
func TestFull(t *testing.T) {
	table := newTable(t)
	write(t, table, map[string][]byte{"a": []byte("1")})
	a, b := dups(t, table)
	good := table.files
	fd, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	full := fdpass.NewFile(fd)
	table.files = [2]*fdpass.File{full, full}
	if err := table.Write(map[string][]byte{"b": []byte("2")}); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	_ = full.Close()
	table.files = good
	if got, err := Read(a, b); err != nil || len(got) != 1 {
		t.Fatalf("%v %v", got, err)
	}
	write(t, table, map[string][]byte{"c": []byte("3")})
	if got, err := Read(a, b); err != nil || len(got) != 3 {
		t.Fatalf("%v %v", got, err)
	}
	_, _ = a.Close(), b.Close()
}

// TestBounded: the files stay about as large as the table, however much is written.
func TestBounded(t *testing.T) {
	table := newTable(t)
	for i := range 20_000 {
		write(t, table, map[string][]byte{fmt.Sprint(i % 10): bytes.Repeat([]byte("x"), 1000)})
	}
	total := int64(0)
	for _, f := range table.Files() {
		var st unix.Stat_t
		if err := unix.Fstat(f.Fd(), &st); err != nil {
			t.Fatal(err)
		}
		total += st.Size
	}
	if total > 2*slack {
		t.Errorf("%d bytes for a table of %d", total, table.size)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(frame(kindWhole, 1, map[string][]byte{"a": []byte("b")}), frame(kindChange, 2, map[string][]byte{"a": nil})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, seq, ok := parse(data)
		if !ok {
			return
		}
		again, seq2, ok := parse(frame(kindWhole, seq, values))
		if !ok || seq2 != seq || !maps.EqualFunc(values, again, bytes.Equal) {
			t.Fatalf("%v became %v", values, again)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	table := newTable(b)
	value := bytes.Repeat([]byte("x"), 400)
	for i := range b.N {
		if err := table.Write(map[string][]byte{fmt.Sprint("worker/", i%100): value, "master": value}); err != nil {
			b.Fatal(err)
		}
	}
}
