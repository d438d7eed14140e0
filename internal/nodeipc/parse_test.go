package nodeipc

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

// TestParse: lines as Node 20 sends them, and what they mean.
func TestParse(t *testing.T) {
	tcp := func(address string, port int) Place {
		return Place{Network: "tcp", Address: address, Port: port, FD: -1}
	}
	for line, want := range map[string]Message{
		`{"cmd":"NODE_CLUSTER","act":"online","seq":0}`: Online{0},
		// listen(45121)
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":45121,"addressType":4,"backlog":0,"seq":1}`: Query{Seq: 1, Place: tcp("", 45121)},
		// listen({port: 0, host: '::', ipv6Only: true, backlog: 7}), the second one
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":1,"data":null,"address":"::","port":0,"addressType":6,"fd":-1,"flags":1,"backlog":7,"seq":9}`: Query{
			Seq: 9, Place: Place{Network: "tcp", Address: "::", Index: 1, IPv6Only: true, FD: -1}, Backlog: 7},
		// listen(port, host, callback): backlog is what is left of the arguments
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":"8080","addressType":4,"backlog":false,"seq":1}`: Query{Seq: 1, Place: tcp("127.0.0.1", 8080)},
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":" 80 ","addressType":4,"backlog":"17","seq":1}`:         Query{Seq: 1, Place: tcp("", 80), Backlog: 17},
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":80,"addressType":4,"backlog":-5,"seq":1}`:               Query{Seq: 1, Place: tcp("", 80)},
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":{"ticketKeys":"ab"},"address":null,"port":80,"addressType":4,"backlog":0,"seq":1}`: Query{
			Seq: 1, Place: tcp("", 80), Data: json.RawMessage(`{"ticketKeys":"ab"}`)},
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"/tmp/x","port":-1,"addressType":-1,"backlog":0,"readableAll":true,"writableAll":1,"seq":1}`: Query{
			Seq: 1, Place: Place{Network: "unix", Address: "/tmp/x", FD: -1}, ReadableAll: true},
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":null,"addressType":null,"fd":7,"backlog":0,"seq":1}`: Query{Seq: 1, Place: Place{FD: 7}},
		`{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":null,"port":80,"addressType":null,"fd":3,"backlog":0,"seq":2}`:     Listening{2, Place{FD: 3, Port: 80}},
		// dgram: bind(53, '127.0.0.1'), bind() and bind('41000')
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":53,"addressType":"udp4","fd":-1,"flags":0,"seq":1}`: Query{
			Seq: 1, Place: Place{Network: "udp4", Address: "127.0.0.1", Port: 53, FD: -1}},
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"::","addressType":"udp6","fd":-1,"flags":5,"seq":1}`: Query{
			Seq: 1, Place: Place{Network: "udp6", Address: "::", IPv6Only: true, FD: -1}},
		`{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":"127.0.0.1","port":40001,"addressType":4,"backlog":0,"seq":2}`: Listening{2, tcp("127.0.0.1", 40001)},
		`{"cmd":"NODE_CLUSTER","ack":12,"accepted":true,"seq":3}`:                                                                               Answer{12, true},
		`{"cmd":"NODE_CLUSTER","ack":0,"accepted":true,"seq":3}`:                                                                                Answer{0, true},
		`{"cmd":"NODE_CLUSTER","ack":12,"accepted":false,"seq":3}`:                                                                              Answer{12, false},
		`{"cmd":"NODE_CLUSTER","seq":3,"accepted":true,"ack":4294967297}`:                                                                       Answer{1<<32 + 1, true},
		`{"cmd":"NODE_CLUSTER","act":"close","key":"h7","seq":4}`:                                                                               Closed{"h7"},
		`{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":5}`:                                                                          Leaving{5},
		`{"cmd":"NODE_HANDLE_ACK"}`:                                                                                                             HandleAck{},
		`{"cmd":"NODE_HANDLE_NACK"}`:                                                                                                            HandleNack{},
		`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"x","key":"4:127.0.0.1:0"}`:                                                             Handle{"net.Socket"},
		`{"cmd":"NODE_CLUSTER","act":"somethingNew","seq":5}`:                                                                                   Internal{"NODE_CLUSTER", "somethingNew"},
		`{"cmd":"NODE_SOMETHING"}`:                                                                                                              Internal{Cmd: "NODE_SOMETHING"},
		`{"cmd":"NODE_"}`:                                                                                                                       User{json.RawMessage(`{"cmd":"NODE_"}`)},
		`{"CMD":"NODE_CLUSTER","act":"online","seq":0}`:                                                                                         User{json.RawMessage(`{"CMD":"NODE_CLUSTER","act":"online","seq":0}`)},
		`{"cmd":7}`: User{json.RawMessage(`{"cmd":7}`)},
		`"ready"`:   User{json.RawMessage(`"ready"`)},
		`null`:      User{json.RawMessage(`null`)},
		`[1]`:       User{json.RawMessage(`[1]`)},
		`{"cmd":"NODE_CLUSTER","ack":99999999999999999999,"accepted":true,"seq":3}`:               nil,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":5,"port":1,"seq":1}`:             nil,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":4,"port":65536,"seq":1}`:         nil,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":4,"port":-1,"seq":1}`:            nil,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":4,"port":1.5,"seq":1}`:           nil,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":4,"address":7,"port":1,"seq":1}`: nil,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":-1,"address":null,"seq":1}`:      nil,
		`{"cmd":"NODE_CLUSTER","act":"online"}`:                                                   nil,
		``:                                                                                        nil,
		`{`:                                                                                       nil,
		`nonsense`:                                                                                nil,
	} {
		m, err := Parse([]byte(line))
		if !reflect.DeepEqual(m, want) || (want == nil) != errors.Is(err, ErrBadLine) {
			t.Errorf("%s\n\tis %#v, %v\n\twant %#v", line, m, err, want)
		}
	}
}

// FuzzParse: whatever a worker says, it is a message or an error, and the two ways to
// read an answer agree.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"cmd":"NODE_CLUSTER","ack":12,"accepted":true,"seq":3}`, `{"cmd":"NODE_HANDLE_ACK"}`, `"x"`, `{"cmd":"NODE_CLUSTER","ack":00,"accepted":true,"seq":3}`,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":45121,"addressType":4,"backlog":0,"seq":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := Parse(line)
		if (m == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", line, m, err)
		}
		if fast, ok := parseAnswer(line); ok {
			var slow wire
			if err := json.Unmarshal(line, &slow); err != nil {
				return // "seq":03 is no JSON; nobody minds
			}
			if want, err := slow.cluster(); err != nil || want != fast {
				t.Errorf("%q: %v, and slowly %v, %v", line, fast, want, err)
			}
		}
		if q, ok := m.(Query); ok && (q.Port < 0 || q.Port > 65535 || q.Backlog < 0 || q.Index < 0) {
			t.Errorf("%q: %+v", line, q)
		}
	})
}
