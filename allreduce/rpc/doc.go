// Package rpc carries what nodes say to one another over gRPC; no other package knows gRPC.
//
// A node has one [Server] on one port and one [Client]. Calls are of two kinds that never share a
// connection, so that a ping does not queue behind a tensor:
//
//	control   Deliver, Ping, Describe, Status: small protobuf messages, one connection per peer
//	bulk      Fetch, Follow, Part: the state, a piece of it, or of the data, as one opaque blob, a connection of its own
//	frames    one connection per link of a group, made for it and closed with it
//
// A [Group] drives one allreduce.Group over streams, one for both directions between any two members
// that have a link (all of them in worlds of up to allreduce.MaxMesh); of two, allreduce.Opens says who opens
// it. The machine decides everything; here are goroutines, streams and timers, and what happened to
// them in words that the machine knows.
//
//	 Start, Ready, Head, Close          Done, Down
//	           │                            ▲
//	           ▼                            │
//	reader ──▶ the machine, under a lock ───┘          a reader and a sender for each peer
//	           │
//	           └──▶ outbox of a peer ──▶ stream        at once by whoever has brought it about if it is little,
//	                                                   by the peer's sender otherwise
//
// Whoever has something to tell the machine takes the lock and tells it; a small all-reduce passes from
// the socket to the caller without a change of goroutine in between. Frames cross as they are, by a
// codec that knows two kinds of messages, ours and protobuf. Small ones share a message, large ones lie
// where they lay in the vectors until gRPC has copied them into its buffer for the socket; a result is told when
// it has given all of that memory back. The outbox is bounded by the op: a rank sends at most 12 bytes per
// element to a peer. A bounded box would let all ranks wait for one another, each too busy sending to receive.
//
// Both ends measure a link when it has come up, and their machines tell the others (allreduce.Model). A large
// frame is packed where the link, or sealing it by TLS (see records.go), is slower than packing. Bulk connections
// between nodes of one machine are unix sockets, see local.go; in the clear large payloads go beside them through
// memory that both ends have mapped, see memory.go.
//
// # How a group ends
//
// After the first cause of an end a group is dead, and stays dead of that one; a new view makes a new
// group. Which cause is the first, and who is to blame, the machine says in a closing note. The driver
// sends it to all peers, whose machines pass it on before they close, so that the whole group knows
// the same. A peer that is gone without a note is lost: the
// kernel of a killed process resets its connections, and gRPC ends their streams within milliseconds,
// also while nothing is sent. [GroupConfig.Down] is told the note once, after all goroutines are gone;
// then the vectors of an op in progress belong to the caller again. Who comes late to a group that has
// ended gets its note too.
//
// Whether a silent peer is frozen or busy can't be seen from here; [Group.Progress] says who
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
