package view

import (
	"container/heap"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

var scale = flag.Bool("scale", false, "measure changes of view with 1000 and 4000 nodes; takes minutes and 10 GB of memory")

// hive is a cluster of real machines, one thread, virtual time, one seed. What
// is simulated around them:
//
//   - a network with 0.2 to 2 ms from node to node; a node sends one message
//     after the other, at 1 Gbit/s, each as large as Msg.Encode makes it; to a
//     dead process the connection is refused
//   - gossip, which tells each node of each joining one after 0.2 to 2 s, and of
//     each death after 3 to 5 s
//   - training, which is a ring of links and steps of 50 to 300 ms: a group ends
//     at the end of a step once somebody asks, and at once when a link breaks,
//     from neighbour to neighbour; copying states and the farewell cost nothing
type hive struct {
	rnd    *rand.Rand
	now    time.Duration
	nodes  []*bee
	living int
	queue  timeline
	order  uint64
	rumour map[time.Duration][]rumour
	rings  map[Name]*ring
	exact  bool // messages arrive as they are decoded, not as they were meant
	cost   cost
	full   time.Duration // when all the living ran one view of all of them
	failed error
}

// cost is what a change of view took.
type cost struct {
	messages, pings int
	bytes           int
	views           map[Name]bool
}

// bee is a node.
type bee struct {
	m     *Machine
	id    int
	alive bool
	free  time.Duration // when it can send again
	sent  int           // bytes
	state uint64
	in    *ring
	rank  int
}

// ring is the group of a view.
type ring struct {
	view    *View
	name    Name
	bees    []*bee
	here    []bool // the group was opened there
	gone    []bool // and is gone
	broken  []Cause
	opened  int
	step    time.Duration
	begun   time.Duration // of the first step
	asked   bool
	orderly bool
	state   uint64
}

// rumour is news of a node that reaches another.
type rumour struct {
	to, about int32
	dead      bool
}

// moment is what happens at a time.
type moment struct {
	at    time.Duration
	order uint64
	do    func()
}

type timeline []moment

func (q timeline) Len() int { return len(q) }
func (q timeline) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q timeline) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timeline) Push(x any)   { *q = append(*q, x.(moment)) }
func (q *timeline) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = moment{}
	*q = old[:len(old)-1]
	return last
}

func newHive(seed uint64) *hive {
	h := &hive{rnd: rand.New(rand.NewPCG(seed, 11)), rumour: map[time.Duration][]rumour{}, rings: map[Name]*ring{}}
	h.reset()
	return h
}

// reset begins a measurement.
func (h *hive) reset() {
	h.cost, h.full = cost{views: map[Name]bool{}}, 0
	for _, b := range h.nodes {
		b.sent = 0
	}
}

func (h *hive) clock() time.Time { return time.Unix(1e9, 0).Add(h.now) }

func (h *hive) after(d time.Duration, do func()) {
	h.order++
	heap.Push(&h.queue, moment{h.now + d, h.order, do})
}

func (h *hive) between(a, b time.Duration) time.Duration {
	return a + time.Duration(h.rnd.Int64N(int64(b-a)))
}

func (h *hive) latency() time.Duration { return h.between(200*time.Microsecond, 2*time.Millisecond) }

// run lets virtual time pass.
func (h *hive) run(until time.Duration, done func() bool) {
	for len(h.queue) > 0 && h.queue[0].at <= until && !done() {
		e := heap.Pop(&h.queue).(moment)
		h.now = e.at
		e.do()
	}
}

// join starts n processes at once.
func (h *hive) join(n, expect int) {
	old := len(h.nodes)
	for range n {
		id := len(h.nodes)
		f := Fact{ID: fmt.Sprintf("node-%04d", id), Incarnation: h.rnd.Uint64(), Addr: fmt.Sprintf("10.7.%d.%d:7946", id/250, id%250), Trajectory: [32]byte{1}}
		cfg := DefaultConfig(f)
		cfg.Expect = expect
		h.nodes = append(h.nodes, &bee{m: New(cfg, Stand{}, h.clock()), id: id, alive: true})
	}
	h.living += n
	for _, b := range h.nodes[old:] {
		for _, o := range h.nodes[:old] {
			if o.alive {
				h.spread(o.id, b.id, false, 200*time.Millisecond, 2*time.Second)
			}
		}
		h.happen(b)
		h.tick(b, h.between(0, 50*time.Millisecond))
		h.measure(b, h.between(time.Second, 2*time.Second))
		h.after(h.between(300*time.Millisecond, time.Second), func() { b.m.Ready(h.clock()); h.happen(b) })
	}
}

func (h *hive) tick(b *bee, in time.Duration) {
	h.after(in, func() {
		if b.alive {
			b.m.Tick(h.clock())
			h.happen(b)
			h.tick(b, 50*time.Millisecond)
		}
	})
}

func (h *hive) measure(b *bee, in time.Duration) {
	h.after(in, func() {
		if b.alive {
			b.m.Measured(100)
			h.happen(b)
			h.measure(b, time.Second)
		}
	})
}

// kill ends a process: its neighbours' links break, gossip finds out.
func (h *hive) kill(b *bee) {
	b.alive = false
	h.living--
	for _, o := range h.nodes {
		if o.alive {
			h.spread(b.id, o.id, true, 3*time.Second, 5*time.Second)
		}
	}
	if g := b.in; g != nil && !g.orderly {
		g.gone[b.rank] = true
		for _, side := range []int{1, len(g.bees) - 1} {
			r := (b.rank + side) % len(g.bees)
			h.after(h.between(time.Millisecond, 5*time.Millisecond), func() {
				h.breaks(g, r, Cause{Blame: b.m.Self(), By: g.bees[r].m.Self(), Reason: "stream reset"})
			})
		}
	}
}

const gossipTick = 10 * time.Millisecond

func (h *hive) spread(about, to int, dead bool, a, b time.Duration) {
	at := (h.now + h.between(a, b)).Truncate(gossipTick) + gossipTick
	if h.rumour[at] == nil {
		h.after(at-h.now, func() {
			for _, r := range h.rumour[at] {
				h.hear(r)
			}
			delete(h.rumour, at)
		})
	}
	h.rumour[at] = append(h.rumour[at], rumour{int32(to), int32(about), dead})
}

func (h *hive) hear(r rumour) {
	to, about := h.nodes[r.to], h.nodes[r.about]
	switch {
	case !to.alive:
		return
	case r.dead:
		to.m.Down(h.clock(), about.m.Fact(), false)
	case about.alive:
		to.m.Up(h.clock(), about.m.Fact())
	}
	h.happen(to)
}

// happen carries out what a machine wants.
func (h *hive) happen(b *bee) {
	for _, e := range b.m.Take() {
		switch e := e.(type) {
		case Send:
			h.send(b, e)
		case Ping:
			h.ping(b, e)
		case Announce:
			for _, o := range h.nodes {
				if o != b && o.alive {
					h.spread(b.id, o.id, false, 200*time.Millisecond, 2*time.Second)
				}
			}
		case Boundary:
			b.in.asked = true
			h.endOfStep(b.in)
		case Halt:
			g, r := b.in, b.rank
			h.after(500*time.Microsecond, func() { h.breaks(g, r, e.Cause) })
		case Install:
			h.install(b, e)
		case Fail:
			h.failed = e.Err
		}
	}
}

// transmit puts bytes on b's wire and returns when the last of them is there.
func (h *hive) transmit(b *bee, bytes int) time.Duration {
	b.free = max(b.free, h.now) + time.Duration(bytes)*8 // 1 Gbit/s is 8 ns a byte
	b.sent += bytes
	h.cost.bytes += bytes
	h.cost.messages++
	return b.free - h.now + h.latency()
}

func (h *hive) find(addr string) *bee {
	var a, b int
	if _, err := fmt.Sscanf(addr, "10.7.%d.%d:", &a, &b); err != nil {
		panic(err)
	}
	return h.nodes[a*250+b]
}

func (h *hive) send(b *bee, e Send) {
	wire, msg, to := e.Msg.Encode(), e.Msg, h.find(e.Addr)
	if h.exact {
		var err error
		if msg, err = DecodeMsg(wire); err != nil {
			panic(err)
		}
	}
	h.after(h.transmit(b, len(wire)), func() {
		if to.alive {
			to.m.Receive(h.clock(), msg)
			h.happen(to)
			return
		}
		h.after(h.latency(), func() { h.tell(b, func() { b.m.Undelivered(h.clock(), e.To) }) })
	})
}

func (h *hive) tell(b *bee, what func()) {
	if b.alive {
		what()
		h.happen(b)
	}
}

func (h *hive) ping(b *bee, e Ping) {
	h.cost.pings++
	to := h.find(e.Addr)
	h.after(h.transmit(b, 100), func() {
		if !to.alive {
			h.after(h.latency(), func() { h.tell(b, func() { b.m.PingFailed(h.clock(), e, true, "refused") }) })
			return
		}
		c, _ := to.m.Status(h.clock())
		p := Pong{Fact: to.m.Fact(), Generation: to.m.Generation(), Coordinator: c}
		h.after(h.transmit(to, pongBytes), func() { h.tell(b, func() { b.m.Ponged(h.clock(), e.To, p) }) })
	})
}

// pongBytes is the size of an answer to a ping.
var pongBytes = func() int {
	b, _ := json.Marshal(Pong{Fact: Fact{ID: "node-0000", Incarnation: 1 << 63, Addr: "10.7.10.100:7946"}, Coordinator: Node{"node-0000", 1 << 63}, Sent: []uint64{0}})
	return len(b)
}()

// --- training ---

func (h *hive) install(b *bee, e Install) {
	name := e.View.Name()
	g := h.rings[name]
	if g == nil {
		g = h.newRing(e.View)
		h.rings[name] = g
		h.cost.views[name] = true
	}
	b.in, b.rank, b.state = g, e.Rank, e.Start.Transition
	g.here[e.Rank], g.state = true, e.Start.Transition
	g.opened++
	if c := g.broken[e.Rank]; c != (Cause{}) {
		h.after(time.Millisecond, func() { h.breaks(g, e.Rank, c) })
		return
	}
	if g.opened == len(g.bees) {
		h.begin(g)
	}
	h.after(3*time.Second, func() { h.awaitNeighbours(g, e.Rank) })
}

func (h *hive) newRing(v *View) *ring {
	n := v.World()
	g := &ring{view: v, name: v.Name(), here: make([]bool, n), gone: make([]bool, n), broken: make([]Cause, n), step: h.between(50*time.Millisecond, 300*time.Millisecond)}
	for _, w := range v.Members {
		g.bees = append(g.bees, h.find(w.Addr))
	}
	return g
}

// begin lets the ring turn: all have opened it.
func (h *hive) begin(g *ring) {
	g.begun = h.now
	alive := true
	for _, b := range g.bees {
		alive = alive && b.alive
	}
	if alive && len(g.bees) == h.living {
		h.full = h.now
	}
	h.after(g.step, func() {
		for r, b := range g.bees {
			if b.alive && !g.gone[r] {
				b.state = g.state + 1
				b.m.Progress(b.state)
			}
		}
	})
	h.endOfStep(g)
}

// endOfStep ends a group that was asked to end, at all its members.
func (h *hive) endOfStep(g *ring) {
	if !g.asked || g.begun == 0 || g.opened < len(g.bees) {
		return
	}
	rest := g.step - (h.now-g.begun)%g.step
	h.after(rest, func() {
		if g.orderly {
			return
		}
		for r := range g.bees {
			if g.gone[r] {
				return // it broke before
			}
		}
		g.orderly = true
		for _, b := range g.bees {
			h.after(h.latency(), func() { h.tell(b, func() { h.quiet(g, b, Cause{}) }) })
		}
	})
}

func (h *hive) quiet(g *ring, b *bee, c Cause) {
	g.gone[b.rank], b.in = true, nil
	b.m.Quiet(h.clock(), Stand{Transition: b.state}, c, nil)
}

// breaks ends a group at one member, and then at its neighbours.
func (h *hive) breaks(g *ring, rank int, c Cause) {
	b := g.bees[rank]
	switch {
	case !b.alive || g.gone[rank] || g.orderly:
		return
	case !g.here[rank]:
		g.broken[rank] = c
		return
	}
	h.quiet(g, b, c)
	h.happen(b)
	for _, side := range []int{1, len(g.bees) - 1} {
		h.after(h.latency(), func() { h.breaks(g, (rank+side)%len(g.bees), c) })
	}
}

func (h *hive) awaitNeighbours(g *ring, rank int) {
	for _, side := range []int{1, len(g.bees) - 1} {
		if r := (rank + side) % len(g.bees); !g.here[r] {
			h.breaks(g, rank, Cause{Blame: g.bees[r].m.Self(), By: g.bees[rank].m.Self(), Reason: "no stream"})
		}
	}
}

// --- measuring ---

// result is a line of the table.
type result struct {
	what    string
	nodes   int
	cost    cost
	busiest int
	took    time.Duration
	cpu     time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("| %s | %d | %d | %d | %.1f | %.2f | %.2f | %d | %.1f |", r.what, r.nodes, r.cost.messages-r.cost.pings, r.cost.pings,
		float64(r.cost.bytes)/1e6, float64(r.busiest)/1e6, r.took.Seconds(), len(r.cost.views), r.cpu.Seconds())
}

const tableHead = `| change | nodes | messages, answers to pings among them | pings | MB in all | MB by the busiest node | seconds until all run the full view | views | CPU s |
|---|---|---|---|---|---|---|---|---|`

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tail is how long the messages of a change are counted: until gossip has told
// everybody of the dead.
const tail = 6 * time.Second

// change lets something happen and waits for the full view.
func (h *hive) change(t testing.TB, what string, do func()) result {
	t.Helper()
	h.reset()
	begun, used := h.now, cpu()
	do()
	h.run(begun+2*time.Minute, func() bool { return h.full > 0 || h.failed != nil })
	if h.full == 0 {
		t.Fatalf("%s: no full view after two minutes (%v)\n%s", what, h.failed, h.why())
	}
	r := result{what: what, nodes: h.living, took: h.full - begun}
	h.run(max(begun, h.full)+tail, func() bool { return false })
	r.cost, r.cpu = h.cost, cpu()-used
	for _, b := range h.nodes {
		r.busiest = max(r.busiest, b.sent)
	}
	return r
}

// why tells what a few of the nodes wait for.
func (h *hive) why() (text string) {
	for _, b := range h.nodes[:min(len(h.nodes), 8)] {
		c, w := b.m.Status(h.clock())
		text += fmt.Sprintf("%s alive %v: %s, generation %d, takes %s for the coordinator, waits for %q\n", b.m.self.ID, b.alive, b.m.phase, b.m.gen, c.ID, w)
	}
	return text
}

func (h *hive) chief() *bee {
	for _, b := range h.nodes {
		if b.alive && b.m.coordinator() == b.m.Self() {
			return b
		}
	}
	panic("nobody coordinates")
}

// changes measures everything with about n nodes.
func changes(t testing.TB, n int, exact bool, report func(result)) {
	h := newHive(uint64(n))
	h.exact = exact
	report(h.change(t, "all start at once", func() { h.join(n, 0) }))
	report(h.change(t, "the coordinator dies", func() { h.kill(h.chief()) }))
	report(h.change(t, "10 % die, as many join", func() {
		chief, victims := h.chief(), n/10
		for _, i := range h.rnd.Perm(n) {
			if b := h.nodes[i]; victims > 0 && b.alive && b != chief {
				h.kill(b)
				victims--
			}
		}
		h.join(n/10, 0)
	}))
	h = newHive(uint64(n) + 1)
	h.exact = exact
	h.change(t, "a quarter starts", func() { h.join(n/4, 0) })
	report(h.change(t, "three quarters join one quarter", func() { h.join(n-n/4, 0) }))
}

func TestAChangeOfViewIsCheapForHundreds(t *testing.T) {
	const n = 240
	changes(t, n, true, func(r result) {
		t.Log(r)
		if r.took > 4*time.Second || len(r.cost.views) > 4 || r.cost.messages > 150*n || r.busiest > 4<<20 {
			t.Errorf("it cost too much")
		}
	})
}

func TestTheSameSeedGivesTheSameChanges(t *testing.T) {
	var runs [2]string
	for i := range runs {
		changes(t, 60, i == 0, func(r result) {
			r.cpu = 0
			runs[i] += fmt.Sprintln(r)
		})
	}
	if runs[0] != runs[1] { // nor does it matter whether messages were encoded on their way
		t.Errorf("first\n%sthen\n%s", runs[0], runs[1])
	}
}

func TestScale(t *testing.T) {
	if !*scale {
		t.Skip("takes minutes; run with -scale")
	}
	fmt.Println(tableHead)
	for _, n := range []int{1000, 4000} {
		changes(t, n, false, func(r result) { fmt.Println(r) })
	}
}
