// Hostile is a worker of protocol node that is good until it is told what to do: then
// it does to its channel what no worker should.
//
//	hostile SOCKET       waits there for the name of a deed
//	hostile alive        is no worker of Node, and says again and again that it lives
//	hostile spin SHARE   uses so much of a processor, from 0 to 1, and nothing else
//
// It does the deed as often as it can, and ends when the connection to SOCKET does.
package main

import (
	"bufio"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 && os.Args[1] == "spin" {
		share, err := strconv.ParseFloat(os.Args[2], 64)
		if err != nil {
			log.Fatal(err)
		}
		spin(share)
	}
	if len(os.Args) == 2 && os.Args[1] == "alive" {
		alive()
	}
	fd, err := strconv.Atoi(os.Getenv("NODE_CHANNEL_FD"))
	if err != nil || len(os.Args) != 2 {
		log.Fatal("usage: hostile SOCKET, with a channel of Node")
	}
	c := &channel{fd: fd}
	c.say(`{"cmd":"NODE_CLUSTER","act":"online","seq":1}`, `"ready"`)
	orders, err := net.Dial("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	in := bufio.NewReader(orders)
	order, err := in.ReadString('\n')
	if err != nil { // nothing was to be done
		os.Exit(0)
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	name, argument, _ := strings.Cut(strings.TrimSpace(order), " ")
	deed, ok := deeds[name]
	if !ok {
		log.Fatalf("no deed %q", name)
	}
	deed(c, argument)
	select {} // it has been done
}

// spin uses so much of a processor, in pieces of 10 ms.
func spin(share float64) {
	const period = 10 * time.Millisecond
	for tick := range time.Tick(period) {
		until := tick.Add(time.Duration(share * float64(period)))
		for time.Now().Before(until) {
		}
	}
	log.Fatal("no more ticks")
}

// alive tells the master as systemd's programs do, ten times a second.
func alive() {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		log.Fatal(err)
	}
	text := "READY=1\n"
	for range time.Tick(100 * time.Millisecond) {
		if _, err := io.WriteString(c, text+"WATCHDOG=1"); err != nil {
			log.Fatal(err)
		}
		text = ""
	}
}
