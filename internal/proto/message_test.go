package proto

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// full returns one envelope of every message with every member set.
func full() []Envelope {
	mode := uint32(0o600)
	counts := Counts{Connections: 3, Accepted: 1<<64 - 1}
	bodies := []Message{
		Hello{Versions: []int{1, 2}, Client: "c", Epoch: 4, State: StateReady, Holds: []HandleID{1, 2}, Counts: &counts},
		Listen{Name: "n", Network: "tcp", Address: "::1", Port: 1, Backlog: 2, Exclusive: true, IPv6Only: true,
			Mode: &mode, ReadableAll: true, WritableAll: true},
		Close{Handle: 1<<64 - 1}, Ready{}, Draining{Reason: "r"}, Status{Text: "\"quoted\" \u2028 \x00 text"}, Heartbeat{}, counts,
		Connections{TimeoutMS: 5},
		Welcome{Version: 1, Epoch: 2, Pool: "p", Slot: 3, Worker: 4, Generation: 5, Listeners: []Endpoint{{"n", "tcp", "a"}}},
		Grant{Handle: 1, Network: "tcp", Address: "a", Backlog: 2, Name: "n", Policy: "p", Sockets: 3, Tuned: true},
		Error{Code: "EACCES", Errno: 13, Message: "m"}, Count{},
		Conns{Total: 1, Workers: []WorkerConns{{1, 2, 3}}, Missing: []WorkerID{4}},
		Drain{DeadlineMS: 1, Reason: "r"}, Ping{}, Pong{}, Member{Handle: 1}, Look{Handle: 1},
		Pass{Handle: 1}, Passed{}, Channel{Handle: 1},
	}
	var list []Envelope
	for i, b := range bodies {
		list = append(list, Envelope{ID: uint64(i), Re: uint64(2 * i), Body: b})
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range full() {
		seen[e.Body.Type()] = true
		data, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%s\n  got  %#v %v\n  want %#v", data, got, err, e)
		}
	}
	for name := range decoders {
		if !seen[name] {
			t.Errorf("%s is not tried", name)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
		id   uint64
	}{
		{``, ErrBadMessage, 0},
		{`null`, ErrUnknownMessage, 0},
		{`[]`, ErrBadMessage, 0},
		{`{"type":"ready"} {}`, ErrBadMessage, 0},
		{`{"type":"ready","id":-1}`, ErrBadMessage, 0},
		{`{"type":"from_the_future","id":7}`, ErrUnknownMessage, 7},
		{`{"type":"listen","id":8,"port":"80"}`, ErrBadMessage, 8},
		{`{"type":"listen","id":8,"port":1.5}`, ErrBadMessage, 8},
		{`{"type":"` + strings.Repeat("x", MaxMessage) + `"}`, ErrTooLarge, 0},
	} {
		e, err := Decode([]byte(c.in))
		if !errors.Is(err, c.want) || e.ID != c.id {
			t.Errorf("%.60s: id %d, %v; want id %d, %v", c.in, e.ID, err, c.id, c.want)
		}
	}
	if e, err := Decode([]byte(`{"type":"ready","id":3,"later":{"x":[1]}}`)); err != nil || e.ID != 3 {
		t.Errorf("member of a later version: %+v %v", e, err)
	}
}

func TestEncodeTooLarge(t *testing.T) {
	fits := MaxMessage - len(`{"type":"status","text":""}`)
	if data, err := Encode(Envelope{Body: Status{Text: strings.Repeat("x", fits)}}); err != nil || len(data) != MaxMessage {
		t.Errorf("largest message: %d bytes, %v", len(data), err)
	}
	if _, err := Encode(Envelope{Body: Status{Text: strings.Repeat("x", fits+1)}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

// What Decode takes, Encode writes so that Decode takes it again: nothing is
// gained or lost on the way. No input makes it panic.
func FuzzDecode(f *testing.F) {
	for _, e := range full() {
		data, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"type":"hello","counts":{"connections":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Decode(data)
		if err != nil {
			if e.Body != nil {
				t.Fatalf("a body with an error: %#v %v", e, err)
			}
			return
		}
		again, err := Encode(e)
		if errors.Is(err, ErrTooLarge) {
			return // escapes may make it longer
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := Decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		third, err := Encode(f)
		if err != nil || string(third) != string(again) {
			t.Fatalf("not stable:\n  %s\n  %s %v", again, third, err)
		}
	})
}
