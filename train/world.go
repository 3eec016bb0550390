package train

import (
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/shard"
)

// World is all that a Host needs of the machine and the network that it runs on.
// Run is one on sockets, files and goroutines; the simulator is another.
//
// Every function returns at once. Answers come by the function that was given,
// called at most once, later, never from inside the call, by the goroutine that
// owns the Host. Errors of calls to other nodes are *rpc.Error.
type World interface {
	// Now is the time of this machine, as far as waiting goes.
	Now() time.Time

	// Signs tells how far this node's own work has come.
	Signs() Signs

	// Soon has the goroutine that owns the Host call do. Any goroutine may ask for that.
	Soon(do func())

	// Deliver sends a message. failed is called if it is known, or must be
	// feared, that it did not arrive.
	Deliver(addr string, e rpc.Envelope, failed func(error))
	Ping(addr string, incarnation uint64, timeout time.Duration, done func(answer []byte, err error))
	Describe(addr string, done func(answer []byte, err error))
	// Fetch copies a state. cancel hurries it; done is called all the same.
	Fetch(addr string, r rpc.FetchRequest, done func(blob []byte, err error)) (cancel func())

	// Follow gets a piece of what a donor lends, of which nothing may come for at most
	// silence at a time. After cancel, done need not be called.
	Follow(addr string, r rpc.FollowRequest, silence time.Duration, done func(rpc.Piece, error)) (cancel func())

	// Announce has gossip tell a fact about this node.
	Announce(f view.Fact)

	// OpenGroup starts a group. Its links are set up behind the scenes.
	// addrs are the members' addresses, by rank.
	OpenGroup(cfg allreduce.GroupConfig, addrs []string, h GroupHandlers) Link

	// Compute computes this rank's part of an attempt. params must not be kept.
	// ready, if not nil, is told of ranges of the gradient's sum as soon as they are
	// complete, by any goroutine, and of all of them before done is called.
	// cancel hurries it; done is called all the same.
	Compute(a *Attempt, r shard.Range, params []float32, ready func(lo, hi int), done func(Contribution, error)) (cancel func())

	// Save writes a snapshot, which is the world's until done.
	Save(s *checkpoint.Snapshot, done func(checkpoint.Result))

	// Committed, Tell and Record are for journal, status page and terminal.
	// What is told shows to people; a record goes to the journal alone.
	Committed(c Committed)
	Tell(e Event)
	Record(e Event)
}

// GroupHandlers is who hears of a group.
type GroupHandlers struct {
	// Done gives the result of an op; headers are valid until the next Start,
	// total is allreduce.Reducer.Total.
	Done func(seq uint64, headers [][]byte, total uint64)
	// Down tells, once, that the group has ended and nothing of it is left: the
	// vectors of an op in progress are the caller's again.
	Down func(note allreduce.ClosingNote)
}

// Link is a group in being, as its member has it.
type Link interface {
	Start(op allreduce.Op)
	Ready(lo, hi int)   // of an op that was started Open
	Head(header []byte) // likewise
	Close(ending allreduce.Ending, blame, reason string)
	Progress() rpc.Progress
}
