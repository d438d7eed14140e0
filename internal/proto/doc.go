// Package proto defines what master and workers say to each other over a native
// link: the messages, their codec, the error codes, and the names by which a
// socket is asked for and found. It is pure data: no descriptor, no I/O.
//
// docs/protocol.md specifies the same for other languages; a test holds the two
// together.
//
//	worker                                   master
//	  | hello {versions, epoch, state, ...} --> |
//	  | <-- welcome {version, epoch, slot, ...} |
//	  | listen {id, network, address, port} --> |
//	  | <-- grant {re, handle, ...}  + 1 file   |
//	  | ready --------------------------------> |
//	  | counts {connections, accepted} -------> |   whenever they changed
//	  | <-- count {id}                          |
//	  | counts {re, ...} ---------------------> |
//	  | <-- drain {deadline_ms, reason}         |
//	  | draining, close {handle} -------------> |
//	  | end of stream ------------------------> |
package proto
