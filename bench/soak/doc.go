// Soak runs the daemon as a user has it, under load, and does to it what a user
// or bad luck does: reloads, restarts, kill -9, bad files, bad programs. For each
// scenario it prints what was done, what the load client saw, and PASS or FAIL.
//
//	go run ./bench/soak                    a few seconds each
//	go run ./bench/soak -full              the numbers of the acceptance list
//	go run ./bench/soak -run 'kill|idle'   some of them
//	go test ./bench/soak                   the short ones, as tests
//
// Scenarios are functions of a [testkit.T] and a scale, so both ways run the same
// code. The load comes from package bench/load: no retries, every answer over
// 900 ms is lost, and a listen queue that overflowed fails the run. Those counts
// are of the whole network namespace, so beside other loads it is best run in one
// of its own:
//
//	unshare -n sh -c 'ip link set lo up && go run ./bench/soak -full'
//
// The torture scenarios judge each connection instead. Their workers (recorder)
// write down what they do with it before they do it, their clients have an address
// of their own for each, and so the records of both tell for every connection who
// had it, how far it came, and whether anybody else had it too. A worker that is
// killed may take along what it had accepted: what it had written down, and, of
// one hand-over at most, what it had acknowledged and not come to write down. For
// one that is stopped before it is killed even that is exact: whatever the master
// then has a descriptor of must be answered by another.
//
// The scenarios reload-node-... to reload-go-activation run servers as somebody writes
// them who does not know us: programs holds them, and testdata/activation one with a
// module of its own, which is built when it is needed. Beside them pm2-reload shows what
// pm2 loses, under the same load with the same Node server; it is fetched by npm where
// it is not installed. Where a program is missing the scenario is skipped, with the reason.
//
// In node-hostile a worker (hostile) does one misdeed after the other to its channel. How
// long the others' clients wait is compared with a quiet time, and with one in which a
// process that has nothing to do with the master uses the processor as much: a worker
// may compute as it likes. All three alternate. Latencies are judged in full only.
//
// Exit codes: 0 all passed or skipped, 1 one failed, 2 the command line is wrong.
package main
