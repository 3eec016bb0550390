// Package allreduce adds one vector per rank into one vector that all ranks hold.
//
// It is a pure room: no network, clock or goroutine. A [Reducer] is a value that is told what happened
// ([Reducer.Start], [Reducer.Receive]) and answers with the frames to send to its peers; a [Group] is that
// with its links, and how it ends. Package allreduce/rpc drives them over gRPC streams; the simulator
// drives many of them in one goroutine.
//
// # A schedule is data
//
// What is added are integers in float64 (package allreduce/exact), so that any order and any grouping
// give the same bits. Hence all algorithms are one machine with different data. Vectors are cut into
// chunks, chunks into segments, and each chunk has a tree over the ranks ([Schedule]). Sums go up the tree,
// each rank adding its own summand to those of its children, and end as the total at the root, the chunk's
// owner. The owner turns the total into float32 once (Op.Finish) and the result comes down the same tree.
//
//	Ring       chunk 0 of 4:  1 ──▶ 2 ──▶ 3 ──▶ 0      each chunk its own chain, the ring cut after its owner
//	Direct     chunk 0 of 4:  1, 2, 3 ──▶ 0            each chunk its own star
//	Tree       the one chunk: 1 ─▶ 0, 3 ─▶ 2 ─▶ 0      binomial
//	TwoLevel   chunk 0 of 4:  1 ─▶ 0, 3 ─▶ 2 ─▶ 0      zones {0,1} and {2,3}: one sum for each other zone
//	Exchange   no tree: everyone sends all of its vector to everyone and finishes everything itself
//
// Beside the vector each rank gives a small header of bytes, and all ranks get all headers, down trees of
// their own at the same time. Headers carry what must be known before a total can be finished (exponents
// seen, sample counts, digests), so an owner finishes a segment as soon as its total and every header are
// there, whichever comes last; an Op that is Eager does not wait for headers.
//
// An op may be started Open, before any of it is ready: [Reducer.Ready] declares elements final, in any
// order, [Reducer.Head] gives the header. What others send meanwhile is added up beside.
//
// There are no rounds and no barrier: a segment moves on as soon as it has come, so that the segments of a
// chunk fill the links as a pipeline. On a link everything keeps its order. A peer that is quicker may be
// one op ahead, never two, since no op completes without a header of every rank: its frames are held,
// within bounds, until Start. Anything else is taken for a broken peer, and the error says which frame it
// was.
//
// # The total's sum
//
// Bits flip in memory and on the way, and a wrong total goes to all ranks alike. So the owner of a
// segment adds up its integers mod 2^64 while it turns them into float32 (Op.Finish), and these sums go
// around with the results: every rank knows the sum of all totals (Reducer.Total). Who tells the others in
// its header what its own vector's sum was before it came here lets all of them compare. In an Exchange
// each rank compares what it has added itself.
//
// # Cost
//
// For world size N and L elements, hops in sequence from the first frame to the last, and bytes of
// elements that the busiest rank sends (and takes in as many):
//
//	           hops          bytes
//	Ring       2(N-1)        12 L (N-1)/N     the least for any reduce-scatter and all-gather of these widths
//	Direct     2             12 L (N-1)/N
//	Tree       2 log2 N      12 L log2 N, at most
//	TwoLevel   4             less than Direct between zones: 12 L (Z-1) in all for Z zones
//	Exchange   1             8 L (N-1)
//
// Headers come on top, one of each rank to each: N-1 frames in and out of a rank, and log2 N times as many out
// of a tree's root. [WorkOf] counts all of it; docs/scaling.md says what that comes to among thousands.
//
// Elements may be packed on their way, without loss (package packing): who sends a frame decides, and the
// frame says so. Each segment has 48 bytes of frame before it. Which one an op takes, [Choose] computes from what the
// ranks have measured of their links and told in their headers ([Model]): all ranks know the same, so they
// choose alike. Links beyond the ring's may come late: until all ranks have told that they have all of
// theirs, every op is a Ring. Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
// workstations" (2009), shows the bound; Thakur, Rabenseifner and Gropp, "Optimization of collective
// communication operations in MPICH" (2005), why one algorithm does not do.
//
// # Fences
//
// A reducer lives as long as one view of the cluster. Every frame carries the view's name, its [Fence];
// a frame with another is refused. There is no repair: after the first error a reducer is dropped, and
// the next view makes a new one.
package allreduce
