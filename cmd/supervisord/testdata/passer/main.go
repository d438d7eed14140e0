// Passer is a worker whose slot 0 passes each connection on. Whoever serves one says
// so, and gives the client its line back. With the argument "bad" it asks for what
// cannot be passed on instead.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

func main() {
	run := serve
	if len(os.Args) > 1 && os.Args[1] == "bad" {
		run = bad
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "passer:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	w, err := worker.Join(ctx)
	if err != nil {
		return err
	}
	srv := worker.NewServer(worker.ServerOptions{PauseOnConnect: true}, func(c *worker.Socket) {
		if w.Slot() == 0 {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			err := c.PassOn(ctx)
			if err == nil {
				fmt.Println("passed on")
				return
			}
			fmt.Println("not passed:", strings.ReplaceAll(err.Error(), "\n", " "))
		}
		c.Resume()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			fmt.Println("no line:", err)
			return
		}
		_, _ = fmt.Fprintf(c, "%d %d %s", w.Slot(), os.Getpid(), line)
	})
	if err := srv.ListenName(ctx, "web"); err != nil {
		return err
	}
	return w.Run(ctx)
}
