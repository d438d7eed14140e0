package main

import (
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// sources are the programs of the peers: a script for Node, and C.
//
//go:embed peers/cluster.js dispatcher/*.c dispatcher/*.h
var sources embed.FS

var peers = []target{
	{name: plainGo, start: plain("bench/compare/server")},
	{name: plainGo1, start: plain("bench/compare/server", "GOMAXPROCS=1")},
	{name: "plain Go, net/http", cases: []string{"rate"}, start: plain("bench/plain")},
	{name: nodeRR, start: node("rr")},
	{name: "Node none", start: node("none")},
	{name: "nginx", cases: []string{"rate", "spread", "fixed"}, start: nginx("")},
	{name: "nginx reuseport", cases: []string{"rate", "spread", "fixed"}, start: nginx(" reuseport")},
	{name: inC, start: dispatcher("none")},
	{name: inCMaster, start: dispatcher("master")},
	{name: inCBatch, start: dispatcher("all")},
}

type starter = func(context.Context, *kit, string, int) (*server, error)

// plain runs a Go program some times on one listening socket.
func plain(program string, env ...string) starter {
	return func(ctx context.Context, k *kit, dir string, workers int) (*server, error) {
		address, _, err := freeAddress()
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		s := &server{address: address}
		for i := range workers {
			p, err := k.launch(dir, environment(dir, env...), []*os.File{file}, k.program(program), strconv.Itoa(i))
			if err == nil {
				s.processes, s.workers = append(s.processes, p), append(s.workers, p.pid())
				if program != "bench/plain" { // which says nothing; what comes early waits in the queue
					err = p.until(ctx, "it was ready", p.saysReady)
				}
			}
			if err != nil {
				s.stop()
				return nil, err
			}
		}
		return s, nil
	}
}

// node runs Node's cluster with its scheduling policy, rr or none.
func node(policy string) starter {
	return func(ctx context.Context, k *kit, dir string, workers int) (*server, error) {
		program, err := searchPath("node")
		if err != nil {
			return nil, missing("node")
		}
		script, err := unpack(dir, "peers/cluster.js")
		if err != nil {
			return nil, err
		}
		env := environment(dir, "NODE_CLUSTER_SCHED_POLICY="+policy)
		if setsid, err := searchPath("setsid"); err == nil {
			wrapper := filepath.Join(dir, "node")
			text := fmt.Sprintf("#!/bin/sh\nexec %q %q \"$@\"\n", setsid, program)
			if err := os.WriteFile(wrapper, []byte(text), 0o700); err != nil {
				return nil, err
			}
			env = append(env, "WRAPPER="+wrapper)
		}
		return k.forking(ctx, dir, env, workers, program, func(port, workers string) []string { return []string{script, port, workers} })
	}
}

// dispatcher compiles the dispatcher in C, once, and runs it; batch says who runs
// under SCHED_BATCH.
func dispatcher(batch string) starter {
	return func(ctx context.Context, k *kit, dir string, workers int) (*server, error) {
		compiler, err := searchPath("gcc")
		if err != nil {
			return nil, missing("gcc")
		}
		program := k.program("dispatcher")
		err, done := k.built[program]
		if !done {
			err = compile(ctx, compiler, k.programs, program)
			k.built[program] = err
		}
		if err != nil {
			return nil, err
		}
		return k.forking(ctx, dir, environment(dir), workers, program, func(port, workers string) []string { return []string{port, workers, batch} })
	}
}

func compile(ctx context.Context, compiler, dir, program string) error {
	if _, err := unpack(dir, "dispatcher/dispatcher.h"); err != nil {
		return err
	}
	args := []string{"-O2", "-Wall", "-o", program}
	for _, name := range []string{"dispatcher/dispatcher.c", "dispatcher/worker.c"} {
		file, err := unpack(dir, name)
		if err != nil {
			return err
		}
		args = append(args, file)
	}
	if text, err := exec.CommandContext(ctx, compiler, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot compile the dispatcher: %w: %s", err, lastLines(string(text)))
	}
	return nil
}

// unpack writes an embedded file into dir and returns its path.
func unpack(dir, name string) (string, error) {
	text, err := sources.ReadFile(name)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, filepath.Base(name))
	return file, os.WriteFile(file, text, 0o600)
}

// nginx runs nginx; listen is what its directive has beside the address.
func nginx(listen string) starter {
	return func(ctx context.Context, k *kit, dir string, workers int) (*server, error) {
		program, err := searchPath("nginx")
		if err != nil {
			return nil, missing("nginx")
		}
		address, _, err := freeAddress()
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(nginxConfiguration(dir, address+listen, workers)), 0o600); err != nil {
			return nil, err
		}
		p, err := k.launch(dir, environment(dir), nil, program, "-e", "stderr", "-p", dir, "-c", file)
		if err != nil {
			return nil, err
		}
		s := &server{address: address, processes: []*process{p}}
		err = p.until(ctx, "its workers ran", func() bool { return len(p.children()) == workers && answers(address) })
		s.watch(p)
		if err != nil {
			s.stop()
			return nil, err
		}
		return s, nil
	}
}

// nginxConfiguration makes nginx answer as the others do, and write nothing.
func nginxConfiguration(dir, listen string, workers int) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	return fmt.Sprintf(`daemon off;
%sworker_processes %d;
pid %[3]s/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
	access_log off;
	server_tokens off;
	keepalive_requests 1000000;
	client_body_temp_path %[3]s;
	proxy_temp_path %[3]s;
	fastcgi_temp_path %[3]s;
	uwsgi_temp_path %[3]s;
	scgi_temp_path %[3]s;
	server {
		listen %[4]s backlog=511;
		location / {
			add_header X-Worker $pid;
			return 200 "ok\n";
		}
	}
}
`, user, workers, dir, listen)
}

// forking runs a server whose master forks its workers, and waits until it says
// that it is ready. args makes the arguments of the port and the number of workers.
func (k *kit) forking(ctx context.Context, dir string, env []string, workers int, program string, args func(port, workers string) []string) (*server, error) {
	address, port, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := k.launch(dir, env, nil, program, args(strconv.Itoa(port), strconv.Itoa(workers))...)
	if err != nil {
		return nil, err
	}
	s := &server{address: address, processes: []*process{p}}
	err = p.until(ctx, "it was ready", p.saysReady)
	s.watch(p)
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// answers reports whether somebody listens there.
func answers(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
