// Package rpc carries what nodes say to one another over gRPC; no other package knows gRPC.
//
// A node has one [Server] on one port and one [Client]. Calls are of two kinds that never share a
// connection, so that a ping does not queue behind a tensor:
//
//	control   Deliver, Ping, Describe, Status: small protobuf messages, one connection per peer
//	bulk      Fetch: the state as one opaque blob, a connection of its own
//	ring      one connection per group, made for it and closed with it
//
// A [Group] drives one allreduce.Ring over two streams: it opens one to its right neighbour and is
// sent one by its left neighbour.
//
//	             Start(op)                            Done, Down
//	                 │                                    ▲
//	                 ▼                                    │
//	left ──▶ reader ──▶ owner of the Ring ──▶ queue ──▶ sender ──▶ right
//	     ◀── note ──┘                                ┌─ watcher ◀── note
//
// Frames cross as they are, by a codec that knows two kinds of messages, ours and protobuf. The queue
// is bounded by the op: a rank sends at most 12 bytes per element. A bounded queue would let all
// ranks wait for one another, each too busy sending to receive.
//
// # How a group ends
//
// After the first error a group is dead; a new view makes a new one. Every end is told in both
// directions by a closing note that names the root cause, and each node passes on the note it got, so
// that the whole ring knows whom to blame about one round trip per hop later. A neighbour that is
// gone without a note is lost: the kernel of a killed process resets its connections, and gRPC ends
// their streams within milliseconds, also while nothing is sent. [GroupConfig.Down] is told once,
// after all goroutines are gone; then the vectors of an op in progress belong to the caller again.
//
// Whether a silent neighbour is frozen or busy can't be seen from here; [Group.Progress] says who
// waits since when, and whoever watches it may ping and then [Group.Close], which unblocks everything.
//
// # What a call's error means
//
// [Unreachable] is certain and immediate: nobody listens there, or the connection was reset. It is never
// the memory of an earlier failure: a connection that failed is thrown away, so gRPC's back-off
// does not come into play and a peer that has just come back is heard at once. [Timeout] means
// silence. [Rejected] means that the peer answered and said no.
package rpc

//go:generate ../../scripts/generate.sh
