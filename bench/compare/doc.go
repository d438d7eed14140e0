// Compare measures the policies of supervisord side by side with what one would
// use instead, and prints medians, ratios, and whether the figures that are
// promised were reached.
//
//	go run ./bench/compare                                  everything; some 20 minutes
//	go run ./bench/compare -cases rate,tail -rounds 3       two of the cases
//	go run ./bench/compare -only 'shared|round_robin|plain' some of the targets
//	go run ./bench/compare -json > compare.json             medians and every round
//
// # What is compared
//
//	shared, round_robin, ...      the daemon with that policy; all else is its default
//	..., GOMAXPROCS=1             with that in the environment of the workers
//	..., batch; ..., other        with that as scheduling in the limits of the pool
//	shared, as plain Go           with the scheduling and GOMAXPROCS that plain Go has
//	reuse_port, hash              without the program that steers (SUPERVISORD_NO_BPF=1)
//	plain Go                      the same server, started by hand on one listening socket
//	Node's workers, ...           the program of the next row as workers of the daemon
//	Node rr, Node none            Node's cluster module, with both of its schedulings
//	nginx, nginx reuseport        return 200; not in the case with heavy requests
//	C dispatcher                  the design of internal/dispatch in C: what it could be at
//	                              best; with SCHED_BATCH for nobody, the master, or all
//	shared and plain Go, net/http cmd/worker and bench/plain; only in the first case
//
// All do the same work (bench/compare/server and its likes in C and JavaScript):
// read a request, write 80 bytes with the process number, close. (nginx writes 150.) What is not
// installed (node, nginx, gcc), and policies that this version refuses, are skipped
// with a line that says so.
//
// Every server is in a session of its own, and so is every worker: the kernel shares
// the processors out by session (sched(7), autogroup). The workers of nginx are in
// that of their master, which cannot be told otherwise: where the processors are
// used up it gets a smaller part than the others.
//
// # The cases
//
//	rate     16 clients, a new connection for each request, 2 workers
//	spread   800 connections opened at 1000/s and kept, 8 workers: how many each has
//	tail     500 light requests a second among 91 heavy ones of 10 ms of CPU (45 % of
//	         two processors), 4 workers: latency of the light ones
//	fixed    1000 and 4000 new connections a second, 2 workers
//
// All targets of a case are up at the same time and one is loaded at a time. Each
// round takes another order, so that a machine that slows down slows all of them. A
// figure is the median of the rounds; a ratio is the median of the ratios of the
// rounds, so drift cancels out, and may differ from the ratio of the medians.
//
// # How to read it
//
//	sched      who runs under SCHED_BATCH, as found in the processes: other is nobody,
//	           m-batch the master (or one thread of it), w-batch the workers, batch both
//	procs      GOMAXPROCS in the environment of the workers; - is not there
//	cpu us     CPU time of master and workers for a request, m-cpu us the part of the
//	           master; counted in steps of 10 ms,
//	           so it is rough where there are few requests
//	off        greatest distance of a worker from the even share, in connections
//	most/avg   the most connections of a worker by the average
//	/plain     the ratio to plain Go, /plain P1 to that with GOMAXPROCS=1, /Node rr ...
//	/C         to the C dispatcher under the same scheduling
//	- shared   p50 minus that of the policy shared
//
// The client takes a core of its own, so on two processors the rate is as much its
// own as the server's: look at cpu as well. Only ratios mean something, and only
// those of a machine that does nothing else; a p99.9 needs longer runs (-duration).
//
// Exit codes: 0 measured, whatever the figures; 1 a target failed or lost requests;
// 2 the command line is wrong.
package main
