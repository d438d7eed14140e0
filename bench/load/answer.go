package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// maxHead bounds the status line and headers of an answer.
const maxHead = 16 << 10

// head is what the client needs to know of the head of an HTTP answer.
type head struct {
	size   int  // bytes of the head, with the empty line; 0: not complete yet
	length int  // Content-Length
	pid    int  // X-Worker; 0: not told
	close  bool // the server closes afterwards
}

var (
	crlf     = []byte("\r\n")
	headEnd  = []byte("\r\n\r\n")
	version1 = []byte("HTTP/1.")
)

// parseHead reads the head of an answer from the bytes received so far. It
// returns size 0 and no error as long as the end is missing and nothing is
// wrong yet. RFC 9112, sections 4 and 6.
func parseHead(b []byte) (head, error) {
	if n := min(len(b), len(version1)); !bytes.Equal(b[:n], version1[:n]) {
		return head{}, fmt.Errorf("not HTTP/1: %.40q", b)
	}
	end := bytes.Index(b, headEnd)
	if end < 0 {
		if len(b) > maxHead {
			return head{}, fmt.Errorf("a head of over %d bytes", maxHead)
		}
		return head{}, nil
	}
	line, rest, _ := bytes.Cut(b[:end], crlf)
	if len(line) < 12 || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return head{}, fmt.Errorf("status line %.40q", line)
	}
	h := head{size: end + len(headEnd), length: -1, close: line[7] == '0'}
	// All headers are read even if the status is wrong: X-Worker tells whose
	// error page it is.
	var broken error
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, crlf)
		if err := h.field(line); err != nil && broken == nil {
			broken = err
		}
	}
	line = b[:bytes.Index(b, crlf)]
	switch {
	case string(line[9:12]) != "200":
		return h, fmt.Errorf("status %.60q", line[9:])
	case broken != nil:
		return h, broken
	case h.length < 0:
		return h, errors.New("no Content-Length: an answer that is cut off could not be told")
	}
	return h, nil
}

// field takes one header line into h.
func (h *head) field(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return fmt.Errorf("header line %.40q", line)
	}
	value = bytes.TrimSpace(value)
	switch {
	case is(name, "Content-Length"):
		n, ok := number(value)
		if !ok || n > maxAnswer || (h.length >= 0 && h.length != n) {
			return fmt.Errorf("Content-Length %.40q (at most %d, once)", value, maxAnswer)
		}
		h.length = n
	case is(name, "Transfer-Encoding"):
		return fmt.Errorf("Transfer-Encoding %.40q is not understood", value)
	case is(name, "Connection"):
		if is(value, "close") {
			h.close = true
		} else if is(value, "keep-alive") {
			h.close = false
		}
	case is(name, "X-Worker"):
		if n, ok := number(value); ok {
			h.pid = n
		}
	}
	return nil
}

func is(b []byte, s string) bool { return len(b) == len(s) && bytes.EqualFold(b, []byte(s)) }

// number reads a decimal number of 1 to 10 digits.
func number(b []byte) (int, bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// getRequest is the one request of an HTTP group.
func getRequest(g *Group) []byte {
	s := "GET " + g.Path + " HTTP/1.1\r\nHost: localhost\r\n"
	if !g.KeepAlive {
		s += "Connection: close\r\n"
	}
	return []byte(s + "\r\n")
}

// appendLine appends the line of the n-th echo: a new one each time, so that an
// answer to another request is found out.
func appendLine(b []byte, group, n int) []byte {
	b = append(b, "load "...)
	b = strconv.AppendInt(b, int64(group), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, '\n')
}
