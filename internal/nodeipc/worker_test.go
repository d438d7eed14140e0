package nodeipc

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/proto"
)

// TestPlaces: what an operator reads of a server that listens.
func TestPlaces(t *testing.T) {
	w := NewWorker("", 0)
	for members, want := range map[string]string{
		`"address":"127.0.0.1","port":8080,"addressType":4`:                       "tcp 127.0.0.1:8080",
		`"address":"::","port":8080,"addressType":6`:                              "tcp [::]:8080",
		`"address":null,"port":8080,"addressType":4`:                              "tcp :8080",
		`"address":"0.0.0.0","port":53,"addressType":"udp4","fd":-1`:              "udp4 0.0.0.0:53",
		`"address":"/run/app/x.sock","port":-1,"addressType":-1`:                  "unix /run/app/x.sock",
		`"address":"/run/app/\u0000name","port":-1,"addressType":-1`:              "unix @name",
		`"address":null,"port":8080,"addressType":null,"fd":3`:                    "fd 3 (port 8080)",
		`"address":null,"port":null,"addressType":null,"fd":4,"readableAll":true`: "fd 4",
	} {
		h, err := w.Hear([]byte(`{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,` + members + `,"seq":2}`))
		if err != nil || h.Note != NoteListening || h.Text != want {
			t.Errorf("%s: %q %q, %v, want %q", members, h.Note, h.Text, err, want)
		}
	}
}

// TestUnanswered: Node's own primary does not answer a worker that it has told to go. A
// program that had an error then, and did not expect it, would end with what it has open.
func TestUnanswered(t *testing.T) {
	w := NewWorker("", 0)
	ask := func(seq string) uint64 {
		t.Helper()
		h, err := w.Hear([]byte(`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":8080,"addressType":4,"backlog":0,"seq":` + seq + `}`))
		if err != nil || len(h.Messages) != 1 {
			t.Fatalf("%+v, %v", h, err)
		}
		return h.Messages[0].ID
	}
	refused := proto.Envelope{Re: ask("1"), Body: proto.Error{Code: "EADDRINUSE", Errno: 98}}
	l, ok := w.Say(refused, nil)
	var m struct{ Errno, Ack int }
	if !ok || json.Unmarshal(l.Text, &m) != nil || m.Errno != -98 || m.Ack != 1 {
		t.Errorf("a refusal: %q, %v", l.Text, ok)
	}
	state := proto.Error{Code: proto.CodeState, Message: "not now"}
	if l, ok := w.Say(proto.Envelope{Re: ask("2"), Body: state}, nil); !ok || json.Unmarshal(l.Text, &m) != nil || m.Errno != -22 {
		t.Errorf("before it is online (node -e never is): %q, %v", l.Text, ok)
	}
	if _, err := w.Hear([]byte(`{"cmd":"NODE_CLUSTER","act":"online","seq":3}`)); err != nil {
		t.Fatal(err)
	}
	if l, ok := w.Say(proto.Envelope{Re: ask("4"), Body: state}, nil); ok || l.Text != nil {
		t.Errorf("while it drains: %q, %v", l.Text, ok)
	}
	if len(w.queries) != 0 {
		t.Errorf("%d queries are still open", len(w.queries))
	}
	if l, ok := w.Say(proto.Envelope{Body: proto.Drain{}}, nil); !ok || !strings.Contains(string(l.Text), "disconnect") {
		t.Errorf("drain: %q, %v", l.Text, ok)
	}
}

// TestOrder: queries are answered in their order.
func TestOrder(t *testing.T) {
	w := NewWorker("", 0)
	query := func(seq, port string) []proto.Envelope {
		t.Helper()
		h, err := w.Hear([]byte(`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":{"n":` + seq + `},"address":null,"port":` + port + `,"addressType":4,"backlog":0,"seq":` + seq + `}`))
		if err != nil || h.Answer != nil {
			t.Fatalf("%+v, %v", h, err)
		}
		return h.Messages
	}
	first := query("1", "8080")
	if len(first) != 1 || first[0].Body.(proto.Listen).Port != 8080 {
		t.Fatalf("%+v", first)
	}
	for _, port := range []string{"8081", "8082"} {
		if early := query(port, port); early != nil {
			t.Errorf("%s was passed on before there was an answer: %+v", port, early)
		}
	}
	if e, ok := w.Next(); ok {
		t.Errorf("nothing was answered, and the next is %+v", e)
	}
	re := first[0].ID
	for _, port := range []int{8081, 8082, 0} {
		if l, ok := w.Say(proto.Envelope{Re: re + 7, Body: proto.Grant{Handle: 1}}, nil); ok {
			t.Errorf("an answer to nothing: %q", l.Text)
		}
		if w.Data(re) == nil || w.Data(re+7) != nil {
			t.Errorf("data of %d: %s, of another %s", re, w.Data(re), w.Data(re+7))
		}
		if _, ok := w.Say(proto.Envelope{Re: re, Body: proto.Grant{Handle: 1, Policy: proto.PolicyRoundRobin}}, nil); !ok {
			t.Errorf("the answer to %d is none", re)
		}
		e, ok := w.Next()
		if ok != (port != 0) || ok && e.Body.(proto.Listen).Port != port {
			t.Errorf("after %d comes %+v, want port %d", re, e, port)
		}
		re = e.ID
	}
	if w.Data(0) != nil || w.Data(1) != nil {
		t.Error("data of nothing")
	}
}

// TestResume: the next master knows what the worker holds and has asked, though the
// worker says nothing twice.
func TestResume(t *testing.T) {
	w := NewWorker("round_robin", 0)
	hear := func(line string) Heard {
		t.Helper()
		h, err := w.Hear([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	query := func(port, seq string) string {
		return `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":` + port + `,"addressType":4,"backlog":0,"seq":` + seq + `}`
	}
	hear(`{"cmd":"NODE_CLUSTER","act":"online","seq":1}`)
	first := hear(query("8080", "2")).Messages[0]
	w.Say(proto.Envelope{Re: first.ID, Body: proto.Grant{Handle: 7, Network: "tcp", Policy: "round_robin"}}, nil)
	open := hear(query("8081", "3")).Messages[0]
	data, err := json.Marshal(w.Save())
	if err != nil {
		t.Fatal(err)
	}
	var s Saved
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	w = Resume(s, "round_robin", 1<<32)
	again := w.Rejoin(2)
	if len(again) != 2 {
		t.Fatalf("%+v", again)
	}
	hello, _ := again[0].Body.(proto.Hello)
	if hello.Epoch != 2 || len(hello.Holds) != 1 || hello.Holds[0] != 7 {
		t.Errorf("%+v", hello)
	}
	if again[1].ID != open.ID {
		t.Errorf("asks %+v, and asked %+v", again[1], open)
	}
	l, ok := w.Say(proto.Envelope{Re: open.ID, Body: proto.Error{Code: "EADDRINUSE", Errno: 98}}, nil)
	var m struct{ Ack, Seq int64 }
	if !ok || json.Unmarshal(l.Text, &m) != nil || m.Ack != 3 || m.Seq <= 1<<32 {
		t.Errorf("the answer: %q", l.Text)
	}
	if h := hear(`{"cmd":"NODE_CLUSTER","act":"close","key":"h7","seq":4}`); len(h.Messages) != 1 || len(w.Save().Holds) != 0 {
		t.Errorf("closed: %+v, holds %v", h, w.Save().Holds)
	}
	if NewWorker("", 0).Rejoin(2) != nil {
		t.Error("one that was not online has something to say again")
	}
}
