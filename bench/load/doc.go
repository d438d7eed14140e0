// Package load is the client that judges whether a connection was lost.
//
// [Run] sends requests to servers on this machine while something is done to
// them (a reload, a roll-out, a kill -9) and counts every way in which a request
// can go wrong. It has no retries at all: a client that retries hides resets.
//
// # What it does
//
// A [Plan] holds groups that run at the same time. A [Group] is one of
//
//	Rate                    open loop: a new connection at each tick of a fixed
//	                        schedule, whatever becomes of those before
//	Clients                 closed loop: the next request follows the answer
//	Clients, Every          each client has a fixed schedule of its own
//	... with KeepAlive      and keeps its connection from request to request
//
// Where there is a schedule, latency runs from the scheduled time, not from the
// time of sending: a stall is charged to every request it held up (no
// coordinated omission).
//
// # What counts as lost
//
//	refused            nobody listens; for a Unix path also: no such path
//	queue-full         Unix only: EAGAIN from connect(2), the accept queue is full
//	reset              RST, or a write to a connection that was reset
//	eof-before-answer  closed after request bytes were written, no byte came back
//	eof-in-answer      closed in the middle of an answer
//	timeout            no full answer within Plan.Timeout
//	wrong-answer       not a 200, no Content-Length, bytes too many, a body
//	                   that the check refuses, an echo of another line
//	late               a right answer after Plan.Late (900 ms): a dropped SYN
//	                   shows only as one second more
//	other              what has no name, with its text
//
// A server may close an idle kept connection: that is counted as idle-closed and
// is no failure, as long as no byte of the next request was written. The client
// looks once more right before it writes. A reset of an idle connection is a
// failure. An answer with Connection: close makes the client open a new
// connection for its next request: no failure either.
//
// The run as a whole fails too when a stated rate was missed by more than 2 %,
// when the kernel counted an overflow of a listen queue, or when nothing was
// answered at all.
//
// # What it does not know
//
// The daemon, its configuration and its protocols. It learns which process
// answered from the header X-Worker alone. It does not read chunked answers or
// answers that end with the connection: such an answer cannot be told from one
// that was cut off, so it is a wrong-answer.
//
// # How it works
//
// One goroutine, the caller's, locked to its thread: one epoll set, non-blocking
// sockets, buffers that are used again. It takes at most one core. Sockets are
// close-on-exec and closed when Run returns. Targets must be loopback addresses
// or Unix paths; time, requests and open connections are bounded in every run.
//
// Against ephemeral port exhaustion new connections to 127.0.0.0/8 come from 16
// source addresses in turn (ip(7), IP_BIND_ADDRESS_NO_PORT). With HTTP the server
// closes first and keeps the TIME_WAIT; with echo it is the client. Measured at
// 10000/s of echo: with tcp_tw_reuse off one address is used up after 3 s and the
// rate falls to 2000/s, 16 addresses go on; with the kernel's default (reuse over
// loopback) one is enough too. Set Sources to 1 where the server looks at the
// client's address.
//
// ListenOverflows and ListenDrops are those of the network namespace. A test that
// runs beside others which overflow a queue on purpose sets IgnoreDrops.
//
// Answers of some hundred kilobytes can stall over loopback for 200 ms and more
// (zero windows with segments of 64 KiB; net/http's client shows the same): judge
// losses by small answers.
//
// # Example
//
//	res, err := load.Run(ctx, load.Plan{
//		Duration: 10 * time.Second,
//		Groups: []load.Group{
//			{Name: "new", Target: "127.0.0.1:8080", Rate: 500},
//			{Name: "kept", Target: "127.0.0.1:8080", Clients: 50, KeepAlive: true, Every: 100 * time.Millisecond},
//		},
//	})
//	if err != nil {
//		return err // the plan is wrong; nothing was sent
//	}
//	if err := res.Err(); err != nil {
//		return err // everything that went wrong
//	}
//	fmt.Println(res.PIDs) // who answered how often
package load
