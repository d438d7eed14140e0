// Hostile is a worker that does on its link what no worker should.
package main

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	fd, err := strconv.Atoi(os.Getenv("SUPERVISORD_FD"))
	if err != nil {
		os.Exit(2)
	}
	hello := []byte(`{"type":"hello","id":1,"versions":[1],"client":"hostile"}`)
	send := func(b []byte) { _ = unix.Sendmsg(fd, b, nil, nil, unix.MSG_NOSIGNAL) }
	switch os.Args[1] {
	case "silent":
	case "garbage":
		for {
			send([]byte("\x00\xff{not json"))
		}
	case "huge":
		send(hello)
		big := make([]byte, 100<<10)
		for {
			send(big)
		}
	case "files":
		send(hello)
		rights := unix.UnixRights(0, 1, 2, 0, 1, 2)
		for {
			_ = unix.Sendmsg(fd, []byte(`{"type":"heartbeat"}`), rights, nil, unix.MSG_NOSIGNAL)
		}
	case "flood": // asks, never reads
		send(hello)
		for i := 2; ; i++ {
			send([]byte(`{"type":"connections","id":` + strconv.Itoa(i) + `}`))
		}
	case "hoard": // asks for one port after the other, and closes what it gets without a word
		send(hello)
		buf, oob := make([]byte, 64<<10), make([]byte, 64)
		for port := 30000; port < 60000; port++ {
			send([]byte(`{"type":"listen","id":` + strconv.Itoa(port) + `,"network":"tcp","address":"127.0.0.77","port":` + strconv.Itoa(port) + `}`))
			_, n, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
			if err != nil {
				break
			}
			cmsgs, _ := unix.ParseSocketControlMessage(oob[:n])
			for i := range cmsgs {
				fds, _ := unix.ParseUnixRights(&cmsgs[i])
				for _, f := range fds {
					_ = unix.Close(f)
				}
			}
		}
	case "forbidden": // asks for what it may not have, and reads the answers
		send(hello)
		buf := make([]byte, 64<<10)
		for i := 2; ; i++ {
			send([]byte(`{"type":"listen","id":` + strconv.Itoa(i) + `,"network":"tcp","address":"127.0.0.1","port":22}`))
			send([]byte(`{"type":"close","handle":1}`))
			send([]byte(`{"type":"counts","connections":-9223372036854775808,"accepted":18446744073709551615}`))
			_, _ = unix.Read(fd, buf)
		}
	}
	time.Sleep(time.Hour)
}
