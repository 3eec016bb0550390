package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
)

// group is a rank's part in a group of the product, one op at a time. All that bench
// knows of how a group is made is in this file.
type group struct {
	g    *rpc.Group
	seq  uint64
	done chan outcome // of the op in progress
	down chan allreduce.ClosingNote
}

type outcome struct {
	headers [][]byte // valid until the next op
	total   uint64
}

// setupTimeout is how long the ranks of a world have to link up.
const setupTimeout = 10 * time.Second

// rankName is what a rank is called in its group, and in complaints about it.
func rankName(rank int) string { return fmt.Sprintf("rank %d", rank) }

// openGroup starts a group on a server of this rank's own.
func openGroup(s *rpc.Server, o *openRequest, ranks []addresses, config *tls.Config) *group {
	g := &group{done: make(chan outcome, 1), down: make(chan allreduce.ClosingNote, 1)}
	cfg := rpc.GroupConfig{
		Group:        allreduce.GroupConfig{Config: allreduce.Config{Rank: o.Rank, World: o.World, Fence: allreduce.Fence(o.Fence)}},
		SetupTimeout: setupTimeout, TLS: config,
		Done: func(_ uint64, headers [][]byte, total uint64, _ []float32) { g.done <- outcome{headers, total} },
		Down: func(note allreduce.ClosingNote) { g.down <- note },
	}
	for rank, a := range ranks {
		cfg.Group.Names = append(cfg.Group.Names, rankName(rank))
		cfg.Addrs = append(cfg.Addrs, a.Group)
	}
	g.g = rpc.StartGroup(s, cfg)
	return g
}

// do makes the next op and waits for it. One that is Open is given by give.
func (g *group) do(ctx context.Context, op func(seq uint64) allreduce.Op, give func(ready func(lo, hi int), head func([]byte))) (outcome, error) {
	g.seq++
	next := op(g.seq)
	if g.g.Start(next); next.Open {
		give(g.g.Ready, g.g.Head)
	}
	select {
	case o := <-g.done:
		return o, nil
	case note := <-g.down:
		g.down <- note // for whoever asks next
		return outcome{}, noteError(note)
	case <-ctx.Done():
		g.close()
		return outcome{}, context.Cause(ctx)
	}
}

// barrier returns when all ranks have called it.
func (g *group) barrier(ctx context.Context) error {
	_, err := g.do(ctx, func(seq uint64) allreduce.Op { return allreduce.Op{Seq: seq} }, nil)
	return err
}

// sent is how many bytes of payload have gone out.
func (g *group) sent() uint64 { return g.g.Progress().BytesOut }

// over is what the links to the others are.
func (g *group) over() (all []rpc.Transport) {
	for _, p := range g.g.Progress().Peers {
		if p.Up {
			all = append(all, p.Transport)
		}
	}
	return all
}

// close ends the group and gives the vectors of an op in progress back.
func (g *group) close() {
	g.g.Close(allreduce.Orderly, "", "the measurement is over")
	g.g.Wait()
}

// noteError tells why a group has ended under an op.
func noteError(note allreduce.ClosingNote) error {
	if note.Blame == "" {
		return errors.New(note.Reason + ", says " + note.By)
	}
	return &lostError{note}
}

// lostError says that a rank was lost to another.
type lostError struct{ note allreduce.ClosingNote }

func (e *lostError) Error() string {
	return fmt.Sprintf("%s lost %s: %s", e.note.By, e.note.Blame, e.note.Reason)
}
