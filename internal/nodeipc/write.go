package nodeipc

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
)

// Lines that a master says. Each ends with its newline. A seq is a number that it has
// not used on the channel, an ack the Seq of what is answered, a key what it calls a
// socket towards the worker: at most one of that name in one worker at a time.

// Granted answers a Query: the master accepts, and hands connections over. address is
// where the socket is bound, "127.0.0.1:80" or a path.
func Granted(seq, ack int64, key, address string, data json.RawMessage) []byte {
	m := reply(seq, ack, key, data)
	m["errno"] = nil
	if a, err := netip.ParseAddrPort(address); err == nil {
		family := "IPv4"
		if a.Addr().Is6() {
			family = "IPv6"
		}
		m["sockname"] = map[string]any{"address": a.Addr().String(), "family": family, "port": a.Port()}
	}
	return line(m)
}

// Shared answers a Query: the worker accepts. The socket goes along, O_NONBLOCK.
func Shared(seq, ack int64, key string, data json.RawMessage, datagram bool) []byte {
	m := reply(seq, ack, key, data)
	m["errno"] = 0
	kind := "net.Native"
	if datagram {
		kind = "dgram.Native"
	}
	return line(map[string]any{"cmd": "NODE_HANDLE", "type": kind, "msg": m})
}

// Refused answers a Query. Node knows errors by their number below zero, and ends at
// one above.
func Refused(seq, ack int64, key string, errno syscall.Errno, data json.RawMessage) []byte {
	m := reply(seq, ack, key, data)
	if errno == 0 {
		errno = syscall.EINVAL
	}
	m["errno"] = -int(errno)
	return line(m)
}

// Acknowledged answers Leaving.
func Acknowledged(seq, ack int64) []byte {
	return line(map[string]any{"cmd": "NODE_CLUSTER", "ack": ack, "seq": seq})
}

// Disconnect tells the worker to close its servers, finish what is open, and go.
func Disconnect(seq int64) []byte {
	return line(map[string]any{"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": seq})
}

// Ack and Nack answer a Handle.
var (
	Ack  = []byte("{\"cmd\":\"NODE_HANDLE_ACK\"}\n")
	Nack = []byte("{\"cmd\":\"NODE_HANDLE_NACK\"}\n")
)

// AppendNewConn appends the line that hands a connection over, which goes along,
// O_NONBLOCK. key is as it was in Granted, and needs no escapes in JSON.
func AppendNewConn(b []byte, seq int64, key string) []byte {
	b = append(b, `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"`...)
	b = append(b, key...)
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, seq, 10)
	return append(b, "}}\n"...)
}

func reply(seq, ack int64, key string, data json.RawMessage) map[string]any {
	if data == nil {
		data = json.RawMessage("null")
	}
	return map[string]any{"cmd": "NODE_CLUSTER", "key": key, "ack": ack, "data": data, "seq": seq}
}

func line(m map[string]any) []byte {
	b, err := json.Marshal(m)
	if err != nil { // data was JSON when it came
		panic(fmt.Sprintf("nodeipc: %v", err))
	}
	return append(b, '\n')
}
