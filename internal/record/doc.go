//go:build linux

// Package record keeps a table of names and values where it outlives the process that
// writes it: in two memory files (memfd_create(2)), which somebody else has open, too.
// A master that was killed at any instruction leaves there what it knew after its last
// complete [Table.Write].
//
// # Format
//
// A file is a sequence of frames. The first holds the whole table, each other one what
// a Write changed; together they are the table after the last frame that is valid.
//
//	magic    4 bytes  "SDR1"
//	check    4 bytes  CRC-32C of all that follows
//	kind     4 bytes  0 whole table, 1 changes
//	length   4 bytes  of the body
//	sequence 8 bytes  one more than that of the frame before
//	body              entries: length of name, name, 1 + length of value or 0 for removed, value
//
// Numbers are little-endian, lengths in bodies unsigned varints (encoding/binary). When
// the frames of one file have become much longer than the table, the whole of it goes
// to the other file, and what follows too. Of the two files the one counts whose last
// valid frame has the greater sequence: the other is half written, or old.
package record
