package train

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/testjobs"
	"github.com/dlnode/dlnode/shard"
)

var everyWay = flag.Bool("ways", false, "every combination of ways in TestOneStateWhicheverWayTheSumsGo: minutes")

// way is how sums get from rank to rank.
type way struct {
	world     int
	algorithm allreduce.Algorithm
	zones     bool // ranks are in two zones
	segment   int  // bytes
	packing   rpc.Packing
	open      bool          // they go while others are still computed
	ahead     bool          // updates are made as means come
	transport rpc.Transport // the quickest that may be used
}

func (w way) String() string {
	return fmt.Sprintf("%d ranks, %v, zones %v, segments of %d bytes, packing %d, open %v, %v, ahead %v", w.world, w.algorithm, w.zones, w.segment, w.packing, w.open, w.transport, w.ahead)
}

// ways crosses everything with everything; zones where there can be some.
func ways() (all []way) {
	for world := 1; world <= 8; world++ {
		for bits := range 96 {
			w := way{world: world, segment: 2048, zones: bits&1 != 0, open: bits&2 != 0, transport: rpc.Transport(bits / 32), ahead: bits&16 != 0, packing: rpc.PackNever}
			if bits&4 != 0 {
				w.segment = allreduce.DefaultSegmentBytes
			}
			if bits&8 != 0 {
				w.packing = rpc.PackAlways
			}
			if w.zones && world < 4 {
				continue
			}
			for _, w.algorithm = range allreduce.Algorithms(world, w.zoneOf()) {
				all = append(all, w)
			}
		}
	}
	return all
}

func (w way) zoneOf() []int {
	if !w.zones {
		return nil
	}
	zones := make([]int, w.world)
	for rank := range zones {
		zones[rank] = 2 * rank / w.world
	}
	return zones
}

const waysJob = `data: {synthetic: {samples: 90, test_samples: 10, features: 40, classes: 3}}
model: [{dense: {units: 90, activation: relu}}, {dropout: {rate: 0.1}}, {dense: {units: 90, activation: relu}}, {dense: {units: 3, activation: softmax}}]
loss: sparse_categorical_crossentropy
metrics: [accuracy]
optimizer: {adam: {learning_rate: 0.01}}
batch: {global: 32, microbatch: 3}
epochs: 1
validation: {split: 0.2}
`

// TestOneStateWhicheverWayTheSumsGo trains over real connections by every algorithm,
// transport, packing, size of segment, order of giving, choice of zones and of when
// updates are made, with 1 to 8 ranks: all end in the state that one process alone ends
// in. Without -ways every eleventh combination is played.
func TestOneStateWhicheverWayTheSumsGo(t *testing.T) {
	task := testTask(t, testjobs.File{Name: "ways", Text: []byte(waysJob)})
	alone, err := Fit(t.Context(), task, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := ways()
	t.Logf("%d ways; state %s", len(all), hex.EncodeToString(alone.State[:8]))
	for i, w := range all {
		if !*everyWay && (i%11 != 0 || testing.Short() && i%55 != 0) {
			continue
		}
		for rank, got := range w.train(t, task, byte(i), byte(i>>8)) {
			if got != alone.State {
				t.Fatalf("%v: rank %d ends in %x, one process alone in %x", w, rank, got[:8], alone.State[:8])
			}
		}
	}
}

// train runs the job to its end and returns the state of each rank.
func (w way) train(t *testing.T, task *Task, fence ...byte) [][32]byte {
	cfg := rpc.GroupConfig{Packing: w.packing, SetupTimeout: 20 * time.Second}
	cfg.Group.Config = allreduce.Config{World: w.world, Zones: w.zoneOf(), SegmentBytes: w.segment}
	copy(cfg.Group.Config.Fence[:], append(fence, 1))
	v := &view.View{}
	var servers []*rpc.Server
	for rank := range w.world {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, rpc.Serve(rpc.ServerConfig{Listener: l, Local: w.transport}))
		name := fmt.Sprint("rank-", rank)
		cfg.Group.Names, cfg.Addrs = append(cfg.Group.Names, name), append(cfg.Addrs, l.Addr().String())
		v.Members = append(v.Members, view.Member{ID: name, Incarnation: uint64(rank + 1)})
	}
	states, errs := make([][32]byte, w.world), make(chan error, w.world)
	var all sync.WaitGroup // to the end: who closes sends nothing more
	all.Add(w.world)
	for rank, s := range servers {
		go func() {
			cfg := cfg
			cfg.Group.Config.Rank = rank
			var err error
			states[rank], err = w.rank(t.Context(), task, v, s, cfg, &all)
			errs <- err
		}()
	}
	for range servers {
		if err := <-errs; err != nil {
			t.Errorf("%v: %v", w, err)
		}
	}
	for _, s := range servers {
		s.Close()
	}
	return states
}

// rank is one rank's part: a Node without views, deaths and checkpoints.
func (w way) rank(ctx context.Context, task *Task, v *view.View, server *rpc.Server, cfg rpc.GroupConfig, all *sync.WaitGroup) (state [32]byte, err error) {
	type outcome struct {
		headers [][]byte
		total   uint64
	}
	done, down := make(chan outcome, 1), make(chan allreduce.ClosingNote, 1)
	cfg.Done = func(_ uint64, headers [][]byte, total uint64, _ []float32) { done <- outcome{headers, total} }
	cfg.Down = func(n allreduce.ClosingNote) { down <- n }
	g := rpc.StartGroup(server, cfg)
	defer func() {
		if all.Done(); err == nil {
			all.Wait()
		}
		g.Close(allreduce.Orderly, "", "the end")
		g.Wait()
	}()

	s, e := task.Start(), NewEngine(task, 1)
	a := task.attempt(s)
	ahead := NewAhead(task)
	p := newHelpers(2)
	defer p.close()
	p.lookAhead(ahead)
	for seq := uint64(1); s.Next != Done; seq++ {
		op := allreduce.Op{Seq: seq, Algorithm: w.algorithm, Open: w.open}
		if a.Kind == Update {
			e.grad.Reset(a.Grad)
			task.reduce(&op, a, e.Sums(), task.Plan.Count(a.Step))
			if ahead.stop(); w.ahead {
				ahead.begin(s, task.rate(s, s.Step), op.Out)
				op.Final = ahead.final
			}
		}
		var ranges []shard.Range
		c := Contribution{}
		if w.open {
			g.Start(op)
		}
		if n := task.microbatches(a); n > 0 {
			ranges = shard.NewPace(w.world).Assign(n, a.Rotation)
			r := ranges[cfg.Group.Config.Rank]
			ready := g.Ready
			if !w.open || a.Kind != Update || r.Len() == 0 {
				ready = nil
			}
			if c, err = e.Compute(ctx, a, r, s.params, ready); err != nil {
				return state, err
			}
			if w.open && a.Kind == Update && r.Len() == 0 {
				g.Ready(0, len(c.Grad.Acc()))
			}
		}
		head := task.header(a, c, witness{watch: s.watch(inTurn)}, 0, 1, 0)
		if w.open {
			g.Head(head)
		} else {
			if op.Header = head; a.Kind == Update {
				op.Vec = c.Grad.Acc()
			}
			g.Start(op)
		}
		var o outcome
		select {
		case o = <-done:
		case n := <-down:
			return state, fmt.Errorf("the group ended: %+v", n)
		}
		vd := task.judge(a, v, ranges, o.headers, o.total)
		switch {
		case vd.torn != nil || vd.fatal != nil:
			return state, fmt.Errorf("attempt %+v: %v, %v", a, vd.torn, vd.fatal)
		case vd.again != nil:
			a = vd.again
			continue
		}
		task.commit(s, a, vd, c.Mean, ahead, inTurn)
		a = task.attempt(s)
	}
	return task.digest(s), nil
}
