// Package api defines what the master says over its control socket: HTTP with
// JSON bodies over a Unix socket, and a client for it. The types are promises:
// members are added, never renamed. Unknown is null, never 0.
//
// Reads answer at once (/v1/status, /v1/connections, /v1/events). A command that
// changes something answers with a stream of lines ([Line]): first its operation,
// then what happens, last the result. Hanging up does not stop the operation.
package api
