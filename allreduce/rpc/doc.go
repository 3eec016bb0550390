// Package rpc carries what nodes say to one another over gRPC; no other package knows gRPC.
//
// A node has one [Server] on one port and one [Client]. Calls are of two kinds that never share a
// connection, so that a ping does not queue behind a tensor:
//
//	control   Deliver, Ping, Describe, Status: small protobuf messages, one connection per peer
//	bulk      Fetch, Part: the state, or a piece of the data, as one opaque blob, a connection of its own
//	ring      one connection per group, made for it and closed with it
//
// A [Group] drives one allreduce.Group over two streams: it opens one to its right neighbour and is
// sent one by its left neighbour. The machine decides everything; here are goroutines, streams and
// timers, and what happened to them in words that the machine knows.
//
//	             Start(op), Close                     Done, Down
//	                 │                                    ▲
//	                 ▼                                    │
//	left ──▶ reader ──▶ owner of the machine ──▶ queue ──▶ sender ──▶ right
//	     ◀── note ──┘             ▲                  ┌─ watcher ◀── note
//	                              └── taken, lost ───┘
//
// One goroutine owns the machine, and everyone else tells it. Who has something to tell gives up when
// the group dies, so nobody waits for an owner that has gone. What the left link brings, its end
// included, is told in the order in which it came.
//
// Frames cross as they are, by a codec that knows two kinds of messages, ours and protobuf. The queue
// is bounded by the op: a rank sends at most 12 bytes per element. A bounded queue would let all
// ranks wait for one another, each too busy sending to receive.
//
// # How a group ends
//
// After the first cause of an end a group is dead, and stays dead of that one; a new view makes a new
// group. Which cause is the first, and who is to blame, the machine says in a closing note. The driver
// tells it in both directions, and the neighbours' machines pass it on, so that the whole ring knows
// the same about one round trip per hop later. A neighbour that is gone without a note is lost: the
// kernel of a killed process resets its connections, and gRPC ends their streams within milliseconds,
// also while nothing is sent. [GroupConfig.Down] is told the note once, after all goroutines are gone;
// then the vectors of an op in progress belong to the caller again. Who comes late to a group that has
// ended gets its note too.
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
