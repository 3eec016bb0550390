// Package allreduce adds one vector per rank into one vector that all ranks hold, over a ring.
//
// It is a pure room: no network, clock or goroutine. A [Ring] is a value that is told what happened
// ([Ring.Start], [Ring.Receive]) and answers with the frames to send to its right neighbour. Package
// allreduce/rpc drives it over gRPC streams; the simulator drives many of them in one goroutine.
//
// # The algorithm
//
// Vectors are cut into as many chunks as there are ranks, chunks into segments. Chunk c starts at
// rank c+1, is added to at every rank it passes and ends, as the total, at its owner c. The owner
// turns the total into float32 once (Op.Finish) and the result travels around the ring once more.
// With three ranks, a frame of each chunk takes these hops (every arrow is one link to the right):
//
//	               reduce-scatter (float64)           all-gather (float32)
//	               hop 1          hop 2               hop 1          hop 2
//	chunk 0   rank 1 ──────▶ rank 2 ──────▶ RANK 0 ══════▶ rank 1 ══════▶ rank 2
//	chunk 1   rank 2 ──────▶ rank 0 ──────▶ RANK 1 ══════▶ rank 2 ══════▶ rank 0
//	chunk 2   rank 0 ──────▶ rank 1 ──────▶ RANK 2 ══════▶ rank 0 ══════▶ rank 1
//	          its own      + its own      + its own, Finish
//
// Beside the vector each rank gives a small header of bytes, and all ranks get all headers, by a ring
// all-gather of their own that runs at the same time. Headers carry what must be known before a total
// can be finished (exponents seen, sample counts, digests), so an owner finishes a segment as soon as
// its total and every header are there, whichever comes last.
//
// There are no rounds and no barrier: a segment moves on as soon as it has come, so that the segments
// of a chunk fill the links as a pipeline. On a link everything keeps its order. From that it follows
// that the segments of a chunk arrive in order, and that a frame of the next op can arrive only when
// the last one is complete here; the ring takes anything else for a broken peer and says which frame
// it was. A neighbour that is quicker may be one op ahead, never two, since no op completes
// without every rank: its frames are held, within bounds, until Start.
//
// # The total's sum
//
// Bits flip in memory and on the way, and a wrong total goes to all ranks alike. So the owner of a
// segment adds up its integers mod 2^64 while it turns them into float32 (Op.Finish), and these sums go
// around with the results: every rank knows the sum of all totals (Ring.Total). Who tells the others in
// its header what its own vector's sum was before it came here lets all of them compare.
//
// # Cost
//
// For world size N and L elements each rank sends, per op,
//
//	2(N-1) hops in sequence from the first frame to the last (latency: 2(N-1)·α, plus the pipeline's fill)
//	(N-1)/N · L · (8 + 4) bytes, the least for any reduce-scatter and all-gather of these widths
//	(N-1) headers
//	40 bytes of frame before every segment, 8 behind each finished one
//
// and does (N-1)/N · L additions. Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
// clusters of workstations" (2009), shows the bound. What is added is the caller's affair: package
// allreduce/exact puts integers into the float64 elements, so that order and grouping can't matter.
//
// # Fences
//
// A ring lives as long as one view of the cluster. Every frame carries the view's name, its [Fence];
// a frame with another is refused. There is no repair: after the first error a ring is dropped, and
// the next view makes a new one.
package allreduce
