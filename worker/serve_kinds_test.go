//go:build linux

package worker

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

func TestDrainHTTP2(t *testing.T) {
	pair := httptest.NewTLSServer(nil) // for its certificate
	pair.Close()
	w := alone(t, IdleGrace(time.Hour), GracefulTimeout(time.Hour))
	l, err := w.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, w, &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: &tls.Config{Certificates: pair.TLS.Certificates}}, l)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	ask := func() error {
		r, err := (&http.Client{Transport: tr}).Get("https://" + s.addr)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.ProtoMajor != 2 {
			t.Errorf("protocol %s", r.Proto)
		}
		_, err = io.Copy(io.Discard, r.Body)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	w.Drain("test")
	eventually(t, "listener closed", func() bool { return dial2(s.addr)() != nil })
	if err := ask(); err != nil { // on the old connection, which ends with it
		t.Fatal(err)
	}
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}

func TestServeSupervised(t *testing.T) {
	w, m := joined(t, IdleGrace(0))
	f, b := bound(t, "tcp", "127.0.0.1")
	l := m.granted(w, f, b, 5)
	s := serveOn(t, w, &http.Server{Handler: http.HandlerFunc(hello)}, l)
	expect[proto.Ready](m)
	c := dial(t, b.Address)
	c.ask(t)
	_ = c.Close()
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "stop"}})
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
	until(m, func(d proto.Draining) bool { return d.Reason == "stop" })
	until(m, func(c proto.Close) bool { return c.Handle == 5 })
}

// Somebody else's listener: its connections are not wrapped, but waited for.
func TestServeForeignListener(t *testing.T) {
	w := alone(t, IdleGrace(time.Hour))
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, w, &http.Server{Handler: http.HandlerFunc(hello)}, inner)
	c := dial(t, s.addr)
	c.ask(t)
	w.Drain("test")
	eventually(t, "listener closed", func() bool { return dial2(s.addr)() != nil })
	if !c.ask(t) {
		t.Fatal("not the last answer")
	}
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}
