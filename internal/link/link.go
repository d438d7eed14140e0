// Package link carries the messages of package proto over a fdpass.Conn: one
// message is one packet. It checks sizes and files, and answers nothing by
// itself: what to do with a message that is not understood is the reader's
// decision, made easy by the Envelope that comes with such an error.
//
// A Conn has no goroutine and no buffer of its own; Send and Recv block as those
// of fdpass do.
package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// Conn is one end of a native link. Send may be called from several goroutines;
// Recv from one at a time.
type Conn struct {
	c        *fdpass.Conn
	maxFiles int
	buf      []byte
}

// New takes c. maxFiles is how many files a received message may carry.
func New(c *fdpass.Conn, maxFiles int) *Conn { return &Conn{c: c, maxFiles: maxFiles} }

// Send encodes and sends e with the files, which it borrows. It blocks while the
// peer's buffer is full. Errors: those of proto.Encode and fdpass.Conn.Send.
func (c *Conn) Send(e proto.Envelope, files ...*fdpass.File) error {
	data, err := proto.Encode(e)
	if err != nil {
		return err
	}
	return c.c.Send(data, files...)
}

// Recv waits for the next message. The caller owns the files.
//
// When the message broke the protocol but the link goes on, [IsProtocol] holds
// for the error, no file is returned, and the Envelope has the sender's ID if it
// could be read; with fdpass.ErrFilesLost and ErrTooManyFiles it is whole, so that
// the request which the files belong to can be failed. io.EOF means the peer is
// gone. Other errors: those of fdpass.Conn.Recv.
func (c *Conn) Recv() (proto.Envelope, []*fdpass.File, error) {
	if c.buf == nil {
		c.buf = make([]byte, proto.MaxMessage)
	}
	n, files, err := c.c.Recv(c.buf, c.maxFiles)
	if errors.Is(err, fdpass.ErrFilesLost) || errors.Is(err, fdpass.ErrTooManyFiles) {
		// The length is lost with the files, but a JSON value ends by itself.
		var first json.RawMessage
		if json.NewDecoder(bytes.NewReader(c.buf)).Decode(&first) == nil {
			if e, derr := proto.Decode(first); derr == nil {
				return e, nil, err
			}
		}
	}
	if err != nil {
		return proto.Envelope{}, nil, err
	}
	e, err := proto.Decode(c.buf[:n])
	if err != nil {
		fdpass.CloseAll(files)
		return e, nil, err
	}
	return e, files, nil
}

// SetWriteDeadline bounds every Send, as that of fdpass.Conn does.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// Close closes the link; a Send or Recv under way returns fdpass.ErrClosed.
func (c *Conn) Close() error { return c.c.Close() }

// IsProtocol reports whether an error of Recv concerns one message only.
func IsProtocol(err error) bool {
	for _, e := range []error{
		proto.ErrUnknownMessage, proto.ErrBadMessage, proto.ErrTooLarge,
		fdpass.ErrTooLarge, fdpass.ErrTooManyFiles, fdpass.ErrFilesLost,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
