package nodeipc

import (
	"bytes"
	"errors"
	"fmt"
)

// MaxLine is the length of the longest line that is read, in bytes. Messages of the
// cluster have some hundred; what a program sends of its own may be long.
const MaxLine = 1 << 20

// ErrTooLong means a line over MaxLine: nothing that follows it can be understood.
var ErrTooLong = errors.New("a line is too long")

// Lines cuts what comes over a channel into lines. The zero value is ready for use.
type Lines struct {
	part []byte // of the line that has not ended
}

// Add takes the next bytes and calls line for each line that ends in them, without
// its newline; it is valid until line returns. Errors: ErrTooLong, and that of line,
// after which no more are called.
func (l *Lines) Add(b []byte, line func([]byte) error) error {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		whole := b[:i]
		if len(l.part) > 0 {
			l.part = append(l.part, whole...)
			whole = l.part
		}
		if len(whole) > MaxLine {
			return tooLong(len(whole))
		}
		if err := line(whole); err != nil {
			return err
		}
		l.part = l.part[:0]
		if cap(l.part) > 1<<16 { // one long line does not cost its memory for ever
			l.part = nil
		}
		b = b[i+1:]
	}
	if len(l.part)+len(b) > MaxLine {
		return tooLong(len(l.part) + len(b))
	}
	l.part = append(l.part, b...)
	return nil
}

// Partial reports whether a line has begun and not ended.
func (l *Lines) Partial() bool { return len(l.part) > 0 }

func tooLong(n int) error {
	return fmt.Errorf("%w: %d bytes or more (at most %d)", ErrTooLong, n, MaxLine)
}
