package train

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
)

// world is a whole cluster in one goroutine: real nodes, engines and rings over
// simulated messages, links, gossip, disks and time. Everything random in it
// comes from one seed.
type world struct {
	t     testing.TB
	rnd   *rand.Rand
	now   time.Time
	queue events
	order int
	task  *Task
	nodes map[string]*simNode // by ID; the present life
	lives uint64
	cut   func(a, b string) bool

	digests  map[uint64][32]byte // of every transition that any node reached
	maxStep  uint64
	silent   bool // digests are not compared
	minNodes int
	ended    map[string]Exit
	final    map[string][32]byte
	trace    []string
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].order < q[j].order
	}
	return q[i].at.Before(q[j].at)
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// simNode is one life of a node with its disk.
type simNode struct {
	w      *world
	id     string
	fact   view.Fact
	node   *Node
	engine *Engine
	alive  bool
	frozen bool
	held   []func() // what happens to a frozen node happens when it thaws
	disk   map[uint64][]byte
	group  *simGroup
	groups map[view.Name]*simGroup
	early  map[view.Name][]func(*simGroup) // frames of a group that is not here yet
	last   uint64                          // transition
}

// simGroup is one node's ring in one view.
type simGroup struct {
	n     *simNode
	view  *view.View
	name  view.Name
	rank  int
	ring  *allreduce.Ring
	ended bool
	free  time.Time // of the link to the right: frames keep their order
	op    allreduce.Op
	done  uint64
}

func simTask(t testing.TB) *Task {
	t.Helper()
	train, test, err := (&dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}).Generate()
	if err != nil {
		t.Fatal(err)
	}
	j := job.Default()
	j.Seed, j.Loss, j.Metrics = 7, "sparse_categorical_crossentropy", []string{"accuracy"}
	j.Data = &dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}
	j.Model = []job.Section{nn.NewDense(16, "relu"), nn.NewDropout(0.2), nn.NewDense(3, "softmax")}
	opt, _ := optim.NewSpec("adam")
	j.Optimizer = opt
	j.Batch, j.Epochs = job.Batch{Global: 40, Microbatch: 8}, 14
	j.Validation = &job.Validation{Split: 0.2}
	j.EarlyStopping = &job.EarlyStopping{Monitor: "val_loss", Patience: 4, Mode: "auto", RestoreBest: true}
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func newWorld(t testing.TB, task *Task, seed uint64) *world {
	return &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0), task: task,
		nodes: map[string]*simNode{}, digests: map[uint64][32]byte{}, ended: map[string]Exit{}, final: map[string][32]byte{},
		cut: func(a, b string) bool { return false },
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, event{w.now.Add(d), w.order, do})
}

func (w *world) delay() time.Duration { return time.Duration(200+w.rnd.IntN(4000)) * time.Microsecond }

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3f ", w.now.Sub(time.Unix(1_700_000_000, 0)).Seconds())+fmt.Sprintf(format, args...))
}

// boot starts a life of a node from what is on its disk.
func (w *world) boot(id string, expect int) *simNode {
	w.lives++
	n := &simNode{w: w, id: id, alive: true, groups: map[view.Name]*simGroup{}, early: map[view.Name][]func(*simGroup){}, disk: map[uint64][]byte{}}
	if old := w.nodes[id]; old != nil {
		n.disk = old.disk
	}
	state := w.task.Start()
	for tr, blob := range n.disk {
		if tr > state.Transition {
			snap, err := checkpoint.Unmarshal(blob)
			if err != nil {
				w.t.Fatal(err)
			}
			if state, err = w.task.restore(snap); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	n.fact = view.Fact{ID: id, Incarnation: w.lives, Addr: fmt.Sprintf("%s:%d", id, w.lives), Trajectory: w.task.Trajectory}
	n.engine = NewEngine(w.task, 1)
	w.nodes[id] = n
	n.last = state.Transition
	cfg := view.DefaultConfig(n.fact)
	cfg.Expect, cfg.ExpectFor = expect, 3*time.Second
	cfg.MinNodes = max(1, w.minNodes)
	w.logf("%s boots at transition %d", id, state.Transition)
	n.node = NewNode(w.task, state, cfg, checkpoint.Policy{EverySteps: 7, Keep: 3, Replicas: 2}, w.now)
	n.run()
	for _, o := range w.sorted() {
		if o != n && o.alive {
			w.gossip(o, n)
		}
	}
	w.after(600*time.Millisecond, func() { n.happen(func() { n.node.Ready(w.now) }) })
	w.tick(n)
	return n
}

func (w *world) tick(n *simNode) {
	w.after(50*time.Millisecond, func() {
		if !n.alive {
			return
		}
		n.happen(func() {
			var waiting time.Time
			if g := n.group; g != nil && !g.ended && g.ring.Seq() > g.done {
				waiting = g.free
				if waiting.IsZero() {
					waiting = w.now.Add(-time.Millisecond)
				}
			}
			n.node.Tick(w.now, Links{Waiting: waiting})
		})
		w.tick(n)
	})
}

// happen lets something happen to a node: now, when it thaws, or never.
func (n *simNode) happen(do func()) {
	if !n.alive {
		return
	}
	if n.frozen {
		n.held = append(n.held, do)
		return
	}
	do()
	n.run()
}

func (n *simNode) run() {
	for n.alive {
		effects := n.node.Take()
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			if n.alive {
				n.perform(e)
			}
		}
	}
}

// sorted lists the nodes in an order that a seed decides alone.
func (w *world) sorted() []*simNode {
	var all []*simNode
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		all = append(all, w.nodes[id])
	}
	return all
}

func (w *world) find(addr string) *simNode {
	for _, o := range w.sorted() {
		if o.fact.Addr == addr {
			return o
		}
	}
	return nil
}

func (n *simNode) perform(e Effect) {
	w := n.w
	switch e := e.(type) {
	case view.Send:
		w.after(w.delay(), func() { w.deliver(n, e) })
	case view.Ping:
		w.after(w.delay(), func() { w.ping(n, e) })
	case view.Announce:
		n.fact = e.Fact
		for _, o := range w.sorted() {
			if o != n && o.alive {
				w.gossip(n, o)
			}
		}
	case OpenGroup:
		n.open(e)
	case CloseGroup:
		if g := n.groups[e.View]; g != nil {
			g.close(e.Cause)
		}
	case Compute:
		w.after(time.Duration(w.rnd.IntN(15))*time.Millisecond, func() {
			n.happen(func() {
				c, err := n.engine.Compute(context.Background(), e.Attempt, e.Range, e.Params)
				n.node.Computed(w.now, e.View, c, err)
			})
		})
	case Reduce:
		if g := n.groups[e.View]; g != nil && !g.ended {
			g.op = e.Op
			if err := g.ring.Start(e.Op, g.emit); err != nil {
				w.t.Fatalf("ring of %s: %v", n.id, err)
			}
			g.check()
		}
	case Fetch:
		w.after(w.delay(), func() { w.fetch(n, e) })
	case Save:
		snap := e.Snapshot
		blob := checkpoint.Marshal(snap)
		w.after(time.Duration(w.rnd.IntN(30))*time.Millisecond, func() {
			n.happen(func() {
				n.disk[snap.Transition] = blob
				n.node.Saved(w.now, nil)
			})
		})
	case Committed:
		n.committed(e)
	case Tell:
		w.logf("%s: %s: %s", n.id, e.Event.Kind, e.Event.Text)
	case Exit:
		n.exit(e)
	case CancelCompute, CancelFetch, view.Stranger:
	default:
		w.t.Fatalf("an effect that the simulator does not know: %T", e)
	}
}

func (n *simNode) exit(e Exit) {
	n.w.logf("%s exits: finished %v %s %v", n.id, e.Finished, e.Reason, e.Err)
	n.w.ended[n.id] = e
	if e.Finished {
		n.w.final[n.id] = n.node.Digest()
	}
	n.die()
	for _, o := range n.w.sorted() {
		if o != n && o.alive {
			f := n.node.Views().Fact()
			n.w.after(n.w.delay(), func() { o.happen(func() { o.node.Down(n.w.now, f, true) }) })
		}
	}
}

func (n *simNode) committed(c Committed) {
	w := n.w
	s := n.node.State()
	if s.Transition <= n.last && n.last != 0 && s.Transition != n.last+1 {
		w.t.Fatalf("%s went from transition %d to %d", n.id, n.last, s.Transition)
	}
	n.last = s.Transition
	d := n.node.Digest()
	if old, ok := w.digests[s.Transition]; ok && old != d && !w.silent {
		w.t.Fatalf("%s has another state at transition %d", n.id, s.Transition)
	}
	w.digests[s.Transition] = d
	w.maxStep = max(w.maxStep, s.Step)
	for _, e := range s.History {
		if e.Samples != uint64(w.task.Plan.N) {
			w.t.Fatalf("epoch %d used %d samples of %d", e.Epoch, e.Samples, w.task.Plan.N)
		}
	}
}

func (w *world) gossip(about, to *simNode) {
	f := about.fact
	w.after(time.Duration(20+w.rnd.IntN(400))*time.Millisecond, func() {
		if !w.cut(about.id, to.id) {
			to.happen(func() { to.node.Up(w.now, f) })
		}
	})
}

func (w *world) deliver(from *simNode, e view.Send) {
	to := w.find(e.Addr)
	back := func() {
		w.after(w.delay(), func() { from.happen(func() { from.node.Undelivered(w.now, e.To) }) })
	}
	switch {
	case to != nil && w.cut(from.id, to.id):
		w.after(time.Second, func() { back() })
	case to == nil || !to.alive || to.fact.Node() != e.To:
		back()
	default:
		m, err := view.DecodeMsg(e.Msg.Encode())
		if err != nil {
			w.t.Fatal(err)
		}
		to.happen(func() { to.node.Receive(w.now, m) })
	}
}

func (w *world) ping(from *simNode, e view.Ping) {
	to := w.find(e.Addr)
	fail := func(after time.Duration, why string) {
		w.after(after, func() { from.happen(func() { from.node.PingFailed(w.now, e.To, why != "no answer", why) }) })
	}
	switch {
	case to != nil && (to.frozen && to.alive || w.cut(from.id, to.id)):
		fail(e.Timeout, "no answer")
	case to == nil || !to.alive || to.fact.Node() != e.To:
		fail(w.delay(), "connection refused")
	default:
		p := to.node.Pong(w.now)
		w.after(w.delay(), func() { from.happen(func() { from.node.Ponged(w.now, e.To, p) }) })
	}
}

func (w *world) fetch(n *simNode, e Fetch) {
	d := w.find(e.Donor.Addr)
	var blob []byte
	err := errors.New("the donor is gone")
	if d != nil && d.alive && !d.frozen && !w.cut(n.id, d.id) {
		blob, err = d.node.Serve(e.View.Fence(), e.Transition)
	}
	w.after(5*w.delay(), func() { n.happen(func() { n.node.Fetched(w.now, e.View, blob, err) }) })
}

func (n *simNode) open(e OpenGroup) {
	name := e.View.Name()
	g := &simGroup{n: n, view: e.View, name: name, rank: e.Rank, ring: allreduce.New(allreduce.Config{
		Rank: e.Rank, World: e.View.World(), Fence: name.Fence(), SegmentBytes: 128,
	})}
	n.group, n.groups[name] = g, g
	for _, f := range n.early[name] {
		f(g)
	}
	delete(n.early, name)
	n.w.after(2*time.Second, func() { g.setup() })
}

// setup ends a group whose neighbours have not come.
func (g *simGroup) setup() {
	for _, step := range []int{1, g.view.World() - 1} {
		m := g.view.Members[(g.rank+step)%g.view.World()]
		if o := g.n.w.nodes[m.ID]; o == nil || o.fact.Node() != m.Node() || !o.alive || o.groups[g.name] == nil {
			g.fail(view.Cause{Blame: m.Node(), By: g.n.fact.Node(), Reason: "no stream"})
		}
	}
}

func (g *simGroup) neighbour(step int) *simNode {
	m := g.view.Members[(g.rank+step+g.view.World())%g.view.World()]
	if o := g.n.w.nodes[m.ID]; o != nil && o.fact.Node() == m.Node() {
		return o
	}
	return nil
}

// emit sends a frame to the right, in order.
func (g *simGroup) emit(f allreduce.Frame) {
	w := g.n.w
	raw := f.Append(nil)
	g.toRight(func(r *simGroup) {
		frame, err := allreduce.ParseFrame(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		if r.ended {
			return
		}
		if err := r.ring.Receive(frame, r.emit); err != nil {
			w.t.Fatalf("ring of %s: %v", r.n.id, err)
		}
		r.check()
	})
}

func (g *simGroup) toRight(do func(*simGroup)) {
	w := g.n.w
	at := w.now.Add(w.delay())
	if at.Before(g.free) {
		at = g.free
	}
	g.free = at
	w.after(at.Sub(w.now), func() {
		r := g.neighbour(1)
		if r == nil || !r.alive || w.cut(g.n.id, r.id) {
			return
		}
		r.happen(func() {
			if rg := r.groups[g.name]; rg != nil {
				do(rg)
			} else {
				r.early[g.name] = append(r.early[g.name], do)
			}
		})
	})
}

func (g *simGroup) check() {
	if headers, ok := g.ring.Done(); ok && g.ring.Seq() > g.done && !g.ended {
		g.done = g.ring.Seq()
		g.n.node.Reduced(g.n.w.now, g.name, g.done, headers)
	}
}

// close ends the group by its own node and tells the neighbours why.
func (g *simGroup) close(c view.Cause) {
	if g.ended {
		return
	}
	g.fail(c)
}

func (g *simGroup) fail(c view.Cause) {
	if g.ended {
		return
	}
	g.ended = true
	w := g.n.w
	g.toRight(func(r *simGroup) { r.fail(c) })
	if l := g.neighbour(-1); l != nil && l.alive {
		w.after(w.delay(), func() {
			l.happen(func() {
				if lg := l.groups[g.name]; lg != nil && !w.cut(l.id, g.n.id) {
					lg.fail(c)
				}
			})
		})
	}
	w.after(w.delay(), func() { g.n.happen(func() { g.n.node.GroupDown(w.now, g.name, c) }) })
}

// die ends a life at once: kill -9.
func (n *simNode) die() {
	n.alive = false
	w := n.w
	who := n.fact.Node()
	for _, name := range slices.SortedFunc(maps.Keys(n.groups), func(a, b view.Name) int { return bytes.Compare(a[:], b[:]) }) {
		g := n.groups[name]
		if g.ended {
			continue
		}
		g.ended = true
		for _, step := range []int{1, -1} {
			if o := g.neighbour(step); o != nil && o != n {
				w.after(w.delay(), func() {
					o.happen(func() {
						if og := o.groups[g.name]; og != nil {
							og.fail(view.Cause{Blame: who, By: o.fact.Node(), Reason: "stream reset"})
						}
					})
				})
			}
		}
	}
	for _, o := range w.sorted() {
		if o != n && o.alive {
			w.after(time.Duration(3000+w.rnd.IntN(2000))*time.Millisecond, func() {
				o.happen(func() { o.node.Down(w.now, n.fact, false) })
			})
		}
	}
}

func (n *simNode) thaw() {
	n.frozen = false
	held := n.held
	n.held = nil
	for _, do := range held {
		n.happen(do)
	}
}

// play runs until nobody lives, or until a bound that means that something hangs.
func (w *world) play(bound time.Duration) {
	end := w.now.Add(bound)
	for len(w.queue) > 0 {
		if w.living() == 0 {
			return
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		if w.now.After(end) {
			w.t.Fatalf("nothing came to an end within %s:\n%s", bound, w.tail(60))
		}
		e.do()
	}
}

func (w *world) living() (count int) {
	for _, n := range w.nodes {
		if n.alive {
			count++
		}
	}
	return count
}

func (w *world) tail(n int) string {
	return strings.Join(w.trace[max(0, len(w.trace)-n):], "\n")
}

func oracle(t testing.TB, task *Task) [32]byte {
	w := newWorld(t, task, 0)
	w.boot("alone", 1)
	w.play(10 * time.Minute)
	d, ok := w.final["alone"]
	if !ok {
		t.Fatalf("the one-node run did not finish:\n%s", w.tail(40))
	}
	return d
}

func TestEveryWorldSizeGivesTheSameBits(t *testing.T) {
	task := simTask(t)
	want := oracle(t, task)
	for size := 1; size <= 7; size++ {
		w := newWorld(t, task, uint64(size))
		for i := range size {
			w.boot(fmt.Sprintf("node-%d", i+1), size)
		}
		w.play(10 * time.Minute)
		if len(w.final) != size {
			t.Fatalf("%d of %d nodes finished:\n%s", len(w.final), size, w.tail(60))
		}
		for id, d := range w.final {
			if d != want {
				t.Errorf("%d nodes: %s ends with %x, alone %x", size, id, d, want)
			}
		}
	}
}

var seeds = flag.Int("seeds", 150, "how many schedules of failures to run")

// TestAnyHistoryOfFailuresGivesTheSameBits runs seeded schedules of kills,
// restarts, joins, leaves and freezes.
func TestAnyHistoryOfFailuresGivesTheSameBits(t *testing.T) {
	task := simTask(t)
	want := oracle(t, task)
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { chaos(t, task, uint64(seed), want) })
	}
}

func chaos(t *testing.T, task *Task, seed uint64, want [32]byte) {
	w := newWorld(t, task, 1000+seed)
	size := 2 + w.rnd.IntN(4)
	ids := make([]string, size)
	for i := range ids {
		ids[i] = fmt.Sprintf("node-%d", i+1)
		w.boot(ids[i], size)
	}
	for range 1 + w.rnd.IntN(4) {
		w.after(time.Duration(300+w.rnd.IntN(2000))*time.Millisecond, func() { w.fault(&ids) })
	}
	w.play(10 * time.Minute)
	if len(w.final) == 0 {
		t.Fatalf("nobody finished:\n%s", w.tail(80))
	}
	for id, d := range w.final {
		if d != want {
			t.Errorf("%s ends with %x, want %x", id, d, want)
		}
	}
	for id, e := range w.ended {
		if e.Err != nil {
			t.Errorf("%s ended with %v", id, e.Err)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Log("\n" + w.tail(80))
	}
}

// fault draws one. At least one node is always left alone.
func (w *world) fault(ids *[]string) {
	var living []string
	for id, n := range w.nodes {
		if n.alive && !n.frozen && !n.node.leaving {
			living = append(living, id)
		}
	}
	slices.Sort(living)
	if len(living) == 0 {
		return
	}
	victim := w.nodes[living[w.rnd.IntN(len(living))]]
	switch kind := w.rnd.IntN(5); {
	case kind == 0: // somebody new
		id := fmt.Sprintf("late-%d", w.lives)
		*ids = append(*ids, id)
		w.boot(id, 0)
	case len(living) < 2:
	case kind == 1:
		w.logf("freeze %s", victim.id)
		victim.frozen = true
		w.after(time.Duration(500+w.rnd.IntN(20000))*time.Millisecond, func() {
			w.logf("thaw %s", victim.id)
			victim.thaw()
		})
	case kind == 2:
		w.logf("leave %s", victim.id)
		victim.happen(func() { victim.node.Leave(w.now) })
	default:
		w.logf("kill %s", victim.id)
		victim.die()
		if w.rnd.IntN(2) == 0 {
			w.after(time.Duration(w.rnd.IntN(1500))*time.Millisecond, func() { w.boot(victim.id, 0) })
		}
	}
}
