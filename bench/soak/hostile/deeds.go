package main

import (
	"fmt"
	"log"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// firstSeq is after which the first master counts what it hands over to each worker.
const firstSeq = 1 << 32

var deeds = map[string]func(c *channel, argument string){
	// Valid messages, short and as long as they may be.
	"flood": func(c *channel, _ string) {
		c.always(strings.Repeat(`{"spam":"`+strings.Repeat("x", 100)+"\"}\n", 200))
	},
	"flood-long": func(c *channel, _ string) { c.always(`{"spam":[` + strings.Repeat("[],", 340_000) + "0]}\n") },
	// What is no message.
	"garbage": func(c *channel, _ string) { c.always(strings.Repeat("\x00\xff{not json\n", 200)) },
	"half":    func(c *channel, _ string) { c.write([]byte(`{"cmd":"NODE_CLUSTER","act":"onl`)) },
	"endless": func(c *channel, _ string) { c.always(strings.Repeat("x", 64<<10)) },
	"deaf":    deaf,
	"hold":    hold,
	"files":   files,
	"junk":    junk,
	"claims":  claims,
	"names":   names,
	"forge":   forge,
}

// deaf asks, and never reads an answer.
func deaf(c *channel, _ string) {
	for seq := 2; ; seq++ {
		c.say(query(seq, "127.0.0.1", 22))
	}
}

// hold asks for a server at an address of others, and from then on reads nothing: what
// it is offered there it never acknowledges.
func hold(c *channel, address string) {
	host, port, _ := strings.Cut(address, ":")
	c.say(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","act":"queryServer","seq":2,"address":%q,"port":%s,"addressType":4,"backlog":511,"flags":0,"index":0}`, host, port))
}

func query(seq int, host string, port int) string {
	return fmt.Sprintf(`{"cmd":"NODE_CLUSTER","act":"queryServer","seq":%d,"address":%q,"port":%d,"addressType":4,"flags":0,"index":0}`, seq, host, port)
}

// files sends a descriptor with each line, as process.send(message, handle) does, and
// does not read that it has come.
func files(c *channel, _ string) {
	oob := unix.UnixRights(null())
	for {
		c.send([]byte(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{}}`+"\n"), oob)
	}
}

// junk sends as many descriptors as go, with a line that has none.
func junk(c *channel, _ string) {
	go c.discard()
	oob := unix.UnixRights(slices.Repeat([]int{null()}, 253)...)
	for {
		c.send([]byte("\"x\"\n"), oob)
	}
}

// claims answers for connections that others were handed: their numbers are known.
func claims(c *channel, _ string) {
	go c.discard()
	for n := 1; ; n++ {
		for _, accepted := range []bool{true, false} {
			c.say(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","ack":%d,"accepted":%v,"seq":%d}`, firstSeq+n, accepted, n))
		}
		c.say(`{"cmd":"NODE_HANDLE_ACK"}`)
	}
}

// names speaks in the name of worker 1, and gives away its sockets.
func names(c *channel, _ string) {
	go c.discard()
	const who = `"workerId":1,"uniqueID":"1","NODE_UNIQUE_ID":"1","id":1`
	for seq := 2; ; seq++ {
		c.say(
			fmt.Sprintf(`{"cmd":"NODE_CLUSTER","act":"close","key":"h1","seq":%d,%s}`, seq, who),
			fmt.Sprintf(`{"cmd":"NODE_CLUSTER","act":"listening","address":"127.0.0.1","port":1,"addressType":4,"seq":%d,%s}`, seq, who),
			fmt.Sprintf(`{"cmd":"NODE_CLUSTER","act":"suicide","seq":%d,%s}`, seq, who),
			fmt.Sprintf(`{"act":"exitedAfterDisconnect",%s}`, who))
	}
}

// forge speaks to the notify socket of another worker.
func forge(_ *channel, path string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	text := fmt.Appendf(nil, "READY=1\nWATCHDOG=1\nSTATUS=forged\nMAINPID=%d\nSTOPPING=1\n", os.Getpid())
	for {
		if err := unix.Sendto(fd, text, 0, &unix.SockaddrUnix{Name: path}); err != nil && err != unix.EINTR {
			log.Fatalf("%s: %v", path, err)
		}
	}
}

func null() int {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	return fd
}
