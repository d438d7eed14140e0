// Package nodeipc speaks the language of the channel between a Node.js cluster
// primary and its workers, and translates it to and from the messages of a link (Worker).
//
// The channel is a Unix stream socket at NODE_CHANNEL_FD. A message is one JSON value
// and a newline; a descriptor goes along with the line that announces it:
//
//	worker                                        master
//	  | {"cmd":"NODE_CLUSTER","act":"online"} ----> |
//	  | act queryServer, seq 1 ------------------> |   asks for a socket
//	  | <-------------- ack 1, key, sockname ------ |   the master accepts (round robin)
//	  | <-- NODE_HANDLE {ack 1, key} + socket ----- |   or: the worker accepts
//	  | NODE_HANDLE_ACK --------------------------> |
//	  | act listening ----------------------------> |
//	  | <-- NODE_HANDLE {act newconn, key, seq 7} + connection
//	  | NODE_HANDLE_ACK --------------------------> |
//	  | ack 7, accepted ---------------------------> |   it is the worker's
//	  | <-------------------- act disconnect ------ |
//	  | act close, key ---------------------------> |   for each socket; then the end
//
// After a line with a descriptor nothing else is sent until the worker has answered
// NODE_HANDLE_ACK or NODE_HANDLE_NACK: were a line cut in two, descriptors of several
// would be mixed up.
//
// The package knows lines and messages: no socket, no process, no state beyond the
// part of a line that has come. Nobody but its caller owns a descriptor. The
// lines are those of Node 20; they are documented nowhere.
//
//	var lines nodeipc.Lines
//	err := lines.Add(received, func(line []byte) error {
//		m, err := nodeipc.Parse(line)
//		...
//	})
package nodeipc
