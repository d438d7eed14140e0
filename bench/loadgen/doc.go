// Loadgen sends requests to a server on this machine and fails if one is lost.
//
//	loadgen --rate 500 --keepalive 50 --every 100ms --duration 28s 127.0.0.1:8080
//
// runs 500 new connections a second beside 50 kept ones, each with a request every
// 100 ms. With --versus it alternates two targets and prints medians and ratios.
// What counts as lost is said in [github.com/f72e338e/supervisord/bench/load].
//
// Exit codes: 0 nothing lost and the stated rate reached, 1 something is wrong or
// the run was interrupted, 2 the command line or the plan is wrong.
package main
