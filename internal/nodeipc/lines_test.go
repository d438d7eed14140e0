package nodeipc

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestLines(t *testing.T) {
	const text = "one\n\n{\"zwei\":\"ä\"}\nthree\nrest"
	want := []string{"one", "", `{"zwei":"ä"}`, "three"}
	for size := 1; size <= len(text); size++ {
		var l Lines
		var got []string
		for chunk := range slices.Chunk([]byte(text), size) {
			if err := l.Add(slices.Clone(chunk), func(b []byte) error { got = append(got, string(b)); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) || !l.Partial() {
			t.Errorf("in pieces of %d: %q, partial %v", size, got, l.Partial())
		}
	}
}

func TestLinesTooLong(t *testing.T) {
	none := func([]byte) error { return nil }
	var l Lines
	if err := l.Add(append(bytes.Repeat([]byte("x"), MaxLine), '\n'), none); err != nil {
		t.Errorf("the longest line: %v", err)
	}
	if err := l.Add(append(bytes.Repeat([]byte("x"), MaxLine+1), '\n'), none); !errors.Is(err, ErrTooLong) {
		t.Errorf("one byte more: %v", err)
	}
	l = Lines{}
	var err error
	for i := 0; err == nil && i < 100; i++ { // half a line, for ever
		err = l.Add(bytes.Repeat([]byte("x"), MaxLine/4), none)
	}
	if !errors.Is(err, ErrTooLong) || cap(l.part) > 2*MaxLine {
		t.Errorf("without an end: %v, %d bytes kept", err, cap(l.part))
	}
	l = Lines{}
	stop := errors.New("stop")
	seen := 0
	if err := l.Add([]byte("a\nb\n"), func([]byte) error { seen++; return stop }); err != stop || seen != 1 {
		t.Errorf("%v after %d lines", err, seen)
	}
}

// TestWrite: lines are as Node's own primary sends them, but for the order of members.
func TestWrite(t *testing.T) {
	keys := json.RawMessage(`{"ticketKeys":"ab"}`)
	for got, want := range map[string]string{
		string(Granted(0, 1, "h1", "[::]:45121", nil)):       `{"cmd":"NODE_CLUSTER","errno":null,"key":"h1","ack":1,"data":null,"sockname":{"address":"::","family":"IPv6","port":45121},"seq":0}`,
		string(Granted(4, 2, "h2", "127.0.0.1:80", keys)):    `{"cmd":"NODE_CLUSTER","errno":null,"key":"h2","ack":2,"data":{"ticketKeys":"ab"},"sockname":{"address":"127.0.0.1","family":"IPv4","port":80},"seq":4}`,
		string(Granted(4, 2, "h2", "/run/x", nil)):           `{"cmd":"NODE_CLUSTER","errno":null,"key":"h2","ack":2,"data":null,"seq":4}`,
		string(Shared(0, 1, "h1", nil, false)):               `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"h1","ack":1,"data":null,"seq":0}}`,
		string(Shared(0, 1, "h1", nil, true)):                `{"cmd":"NODE_HANDLE","type":"dgram.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"h1","ack":1,"data":null,"seq":0}}`,
		string(Refused(0, 1, "h1", syscall.EADDRINUSE, nil)): `{"cmd":"NODE_CLUSTER","errno":-98,"key":"h1","ack":1,"data":null,"seq":0}`,
		string(Refused(0, 1, "h1", 0, nil)):                  `{"cmd":"NODE_CLUSTER","errno":-22,"key":"h1","ack":1,"data":null,"seq":0}`,
		string(Acknowledged(3, 5)):                           `{"cmd":"NODE_CLUSTER","ack":5,"seq":3}`,
		string(Disconnect(2)):                                `{"cmd":"NODE_CLUSTER","act":"disconnect","seq":2}`,
		string(AppendNewConn(nil, 1<<32, "h1")):              `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"h1","seq":4294967296}}`,
		string(Ack):                                          `{"cmd":"NODE_HANDLE_ACK"}`,
		string(Nack):                                         `{"cmd":"NODE_HANDLE_NACK"}`,
	} {
		body, ok := strings.CutSuffix(got, "\n")
		var a, b any
		if !ok || strings.Contains(body, "\n") || json.Unmarshal([]byte(body), &a) != nil || json.Unmarshal([]byte(want), &b) != nil {
			t.Fatalf("%q", got)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if !bytes.Equal(x, y) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
