package train

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/shard"
)

// The driver is its Host's World, on sockets, files and goroutines. All of these
// methods are called by the goroutine that runs loop; whatever takes time does
// so beside it, and posts its answer.
var _ World = (*driver)(nil)

// Now implements World.
func (d *driver) Now() time.Time { return time.Now() }

// Signs implements World. Any goroutine may call it once the node is there.
func (d *driver) Signs() Signs {
	return Signs{Work: d.engine.Beats() + d.client.Received(), Doing: cmp.Or(d.peers.waiting(), d.engine.Doing()), Disk: d.disk.Load()}
}

// Soon implements World.
func (d *driver) Soon(do func()) { d.box.post(do) }

// spawn runs f in a goroutine that shutdown waits for.
func (d *driver) spawn(f func()) {
	d.calls.Add(1)
	go func() {
		defer d.calls.Done()
		f()
	}()
}

// ask makes a call that has an answer. The answer to a node that has exited is
// never looked at.
func ask[T any](ctx context.Context, cancel context.CancelFunc, d *driver, call func(context.Context) (T, error), done func(T, error)) {
	d.spawn(func() {
		defer cancel()
		b, err := call(ctx)
		d.box.post(func() { done(b, err) })
	})
}

// Deliver implements World.
func (d *driver) Deliver(addr string, e rpc.Envelope, failed func(error)) {
	d.spawn(func() {
		if _, err := d.client.Deliver(d.ctx, addr, e); err != nil && d.ctx.Err() == nil {
			d.log.Debug("a message was not delivered", "to", addr, "error", err)
			d.box.post(func() { failed(err) })
		}
	})
}

// Ping implements World.
func (d *driver) Ping(addr string, incarnation uint64, timeout time.Duration, done func([]byte, error)) {
	ctx, cancel := context.WithTimeout(d.ctx, timeout)
	ask(ctx, cancel, d, func(ctx context.Context) ([]byte, error) { return d.client.Ping(ctx, addr, incarnation) }, done)
}

// Describe implements World.
func (d *driver) Describe(addr string, done func([]byte, error)) {
	ask(d.ctx, func() {}, d, func(ctx context.Context) ([]byte, error) { return d.client.Describe(ctx, addr) }, done)
}

// Fetch implements World.
func (d *driver) Fetch(addr string, r rpc.FetchRequest, done func([]byte, error)) func() {
	ctx, cancel := context.WithCancel(d.ctx)
	ask(ctx, cancel, d, func(ctx context.Context) ([]byte, error) { return d.client.Fetch(ctx, addr, r) }, done)
	return cancel
}

// Follow implements World.
func (d *driver) Follow(addr string, r rpc.FollowRequest, silence time.Duration, done func(rpc.Piece, error)) func() {
	ctx, cancel := context.WithCancel(d.ctx)
	ask(ctx, cancel, d, func(ctx context.Context) (rpc.Piece, error) { return d.client.Follow(ctx, addr, r, silence) }, done)
	return cancel
}

// Announce implements World.
func (d *driver) Announce(f view.Fact) { d.gossip.Update(f) }

// setupTimeout is how long a view's members have to link up with each other.
const setupTimeout = 3 * time.Second

// OpenGroup implements World.
func (d *driver) OpenGroup(cfg allreduce.GroupConfig, addrs []string, h GroupHandlers) Link {
	var g *rpc.Group
	g = rpc.StartGroup(d.server, rpc.GroupConfig{
		Group: cfg, Addrs: addrs, SetupTimeout: setupTimeout,
		Done: func(seq uint64, headers [][]byte, total uint64, _ []float32) {
			d.box.post(func() { h.Done(seq, headers, total) })
		},
		Down: func(note allreduce.ClosingNote) {
			d.box.post(func() {
				if d.group == g {
					d.group = nil
				}
				h.Down(note)
			})
		},
	})
	d.group = g
	return g
}

// Compute implements World.
func (d *driver) Compute(a *Attempt, r shard.Range, params []float32, ready func(lo, hi int), done func(Contribution, error)) func() {
	ctx, cancel := context.WithCancel(d.ctx)
	d.pool.compute(ctx, a, r, params, ready, func(c Contribution, err error) {
		cancel()
		d.box.post(func() { done(c, err) })
	})
	return cancel
}

// Save implements World. A node has one snapshot with the writer at a time.
func (d *driver) Save(s *checkpoint.Snapshot, done func(checkpoint.Result)) {
	d.saveDone = done
	d.journal.then(func() { // what a checkpoint holds, the journal tells, whenever the process is killed
		if back := d.writer.Submit(s); back != nil {
			d.written(checkpoint.Result{Snapshot: back, Err: errors.New("the writer is closed")})
		}
	})
}

// written takes what became of a snapshot, from the writer's goroutine.
func (d *driver) written(r checkpoint.Result) {
	d.box.post(func() {
		if r.Err != nil {
			d.log.Error("checkpoint failed; training goes on", "step", r.Snapshot.Step, "error", r.Err)
		} else {
			d.shown.checkpoint = r.Saved.Path
		}
		if r.PruneErr != nil {
			d.log.Warn("old checkpoints stay", "error", r.PruneErr)
		}
		d.saveDone(r)
	})
}
