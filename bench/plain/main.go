// Plain is the reference worker's HTTP server without a supervisor: net/http on a
// listening socket that was inherited as descriptor 3. The same answers, byte for
// byte but for the process number. bench/soak compares it with supervised workers.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	slot := "0"
	if len(os.Args) > 1 {
		slot = os.Args[1]
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err == nil {
		err = serve(l, slot)
	}
	fmt.Fprintln(os.Stderr, "plain:", err)
	os.Exit(1)
}

// serve has the shape of the reference worker's handler: a header, then a mux.
func serve(l net.Listener, slot string) error {
	pid := strconv.Itoa(os.Getpid())
	n, err := strconv.Atoi(slot)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		line := fmt.Sprintf("pool=%s slot=%d worker=%d pid=%d generation=%d", "web", n, n+1, os.Getpid(), 1)
		fmt.Fprintln(rw, line)
	})
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("X-Worker", pid)
		mux.ServeHTTP(rw, req)
	})}
	return srv.Serve(l)
}
