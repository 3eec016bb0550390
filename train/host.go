package train

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
)

// Host is one node of a cluster, all but the machine it runs on: it carries out
// what its Node wants, by the World, and tells the Node what came of it. What is
// translated between the two (messages, closing notes, answers to pings) is
// translated here, so that real nodes and simulated ones do it alike.
//
//	gossip, messages, fetches, time ──► Host ──► Node
//	                                     │ ▲       │
//	                         World ◄─────┘ └───────┘ effects
//
// One goroutine owns a Host. Each method takes one event and has performed all
// that follows from it when it returns. After Exit nothing follows from anything.
type Host struct {
	task  *Task
	self  view.Node
	world World
	node  *Node

	link      Link // of the running generation, nil while there is none
	linkView  view.Name
	stopWork  func() // hurries the computation in hand
	stopFetch func()
	waiting   []*copier

	stopFollow map[uint64]func() // by number
	borrowers  []*borrowing

	counters  Counters
	cost      hostCost
	reducedAt time.Time // when the last all-reduce was, until workers compute what follows
	exit      *Exit
}

// HostConfig says who a node is and for whom it waits.
type HostConfig struct {
	Task      *Task
	Self      view.Fact     // NewHost fills in Transition
	MinNodes  int           // below it training waits; 0 is the job's
	Expect    int           // nodes to wait for before the very first step
	ExpectFor time.Duration // and how long; 0 is the default of package view
	Each      Each          // shares out work on vectors; nil does it in turn
	Sums      Sums          // where attempts are summed; without it, an all-reduce begins when all of an attempt is computed
	Ahead     *Ahead        // makes updates while their gradients are on the way; nil for not before all of a gradient is here
	Lending   Lending       // what is kept for those who join; zeros are the defaults

	// CopyInView has a node that joins copy the state in its first view, while the
	// members wait, as nodes do that cannot keep up with them.
	CopyInView bool
}

// copier is a node that copies our state.
type copier struct {
	rpc.FetchRequest
	until time.Time // when it has waited long enough for its view
	reply func(blob []byte, err error)
}

// borrowing is a request for what has not happened yet.
type borrowing struct {
	rpc.FollowRequest
	at    uint64    // the transition that stood here
	news  int       // of the gradient in hand, that there had been
	until time.Time // when it is answered in any case
	reply func(rpc.Piece, error)
}

// hostCost is time of the owning goroutine, which nobody else can use.
type hostCost struct {
	update time.Duration // judging, applying and telling, until workers compute again
	stall  time.Duration // copying the state for checkpoints, and for those who join
	copies int
}

const (
	// copyPatience is how long a request for the state of a view waits for that
	// view: its members learn of it one after another.
	copyPatience = 2 * time.Second
	// holdFor is how long a request for the next transition waits for it.
	holdFor = time.Second
	// orderlyReason goes with an orderly end, for whoever looks at the wire.
	orderlyReason = "end of the generation"
)

var errGone = errors.New("the node goes")

// NewHost makes a node whose state is s, which it takes over. Nothing is asked
// of the world before Begin, but for the time.
func NewHost(cfg HostConfig, s *State, w World) *Host {
	cfg.Self.Transition = s.Transition
	vc := view.DefaultConfig(cfg.Self)
	vc.MinNodes, vc.Expect = cmp.Or(cfg.MinNodes, cfg.Task.Job.MinNodes), cfg.Expect
	if cfg.ExpectFor > 0 {
		vc.ExpectFor = cfg.ExpectFor
	}
	vc.Follow = !cfg.CopyInView
	c := cfg.Task.Job.Checkpoint
	policy := checkpoint.Policy{EverySteps: uint64(c.EverySteps), Keep: c.Keep, Replicas: c.Replicas}
	h := &Host{
		task: cfg.Task, self: cfg.Self.Node(), world: w,
		node:     NewNode(cfg.Task, s, vc, policy, w.Now()),
		stopWork: func() {}, stopFetch: func() {}, // a node may hurry what was never begun
		stopFollow: map[uint64]func(){},
	}
	if cfg.Each != nil {
		h.node.Share(cfg.Each)
	}
	h.node.sums, h.node.ahead = cfg.Sums, cfg.Ahead
	h.node.Lend(cfg.Lending)
	h.node.TimeAudits(func(f func()) time.Duration {
		begun := w.Now()
		f()
		return w.Now().Sub(begun)
	})
	h.node.TimeCopies(func(copy func()) {
		begun := w.Now()
		copy()
		h.cost.stall += w.Now().Sub(begun)
		h.cost.copies++
	})
	return h
}

// Begin performs what the node wants before anything has happened to it. It is
// called once, when the world can take that.
func (h *Host) Begin() { h.perform() }

// Node gives read access to the node between events.
func (h *Host) Node() *Node { return h.node }

// Exit tells how the node ended, nil while it lives.
func (h *Host) Exit() *Exit { return h.exit }

// Pong returns the answer to a ping as of the last event; AnswerPing completes it.
func (h *Host) Pong() view.Pong { return h.node.Pong(h.world.Now()) }

// Counters returns what was counted since the start, running group included.
func (h *Host) Counters() Counters {
	c := h.counters
	c.Repeats = h.node.State().Repeats
	if h.link != nil {
		c.carried(h.link.Progress())
	}
	return c
}

func (c *Counters) carried(p rpc.Progress) {
	c.BytesIn += p.BytesIn
	c.BytesOut += p.BytesOut
}

// --- events ---

// Up takes gossip's word that a node lives or has news.
func (h *Host) Up(f view.Fact) { h.event(func(now time.Time) { h.node.Up(now, f) }) }

// Down takes gossip's word that a node left or seems dead.
func (h *Host) Down(f view.Fact, left bool) {
	h.event(func(now time.Time) { h.node.Down(now, f, left) })
}

// Joined tells that gossip has found the others, or that there are none.
func (h *Host) Joined() { h.event(h.node.Ready) }

// Abort ends the node with an error that the world has given it.
func (h *Host) Abort(err error) { h.event(func(time.Time) { h.node.Abort(err) }) }

// Leave starts an orderly exit.
func (h *Host) Leave() { h.event(h.node.Leave) }

// Measured tells how fast this node is, in samples per second.
func (h *Host) Measured(speed float32) {
	h.event(func(now time.Time) { h.node.Measured(now, speed) })
}

// Receive takes a message of another node, which Admit has let in.
func (h *Host) Receive(m view.Msg) { h.event(func(now time.Time) { h.node.Receive(now, m) }) }

// Tick lets time pass. It is called some twenty times a second.
func (h *Host) Tick() {
	h.event(func(now time.Time) {
		var wires []Wire
		if h.link != nil {
			for _, p := range h.link.Progress().Peers {
				wires = append(wires, Wire{p.WaitingSince, p.SendingSince, p.FramesIn})
			}
		}
		h.node.Tick(now, wires)
		h.node.Heed(now, h.world.Signs())
	})
	h.serveWaiting()
}

// event lets something happen to the node, and performs what it wants then.
func (h *Host) event(happen func(now time.Time)) {
	if h.exit != nil {
		return
	}
	happen(h.world.Now())
	h.perform()
	for h.exit == nil && h.node.Pursue(h.world.Now()) {
		h.perform()
	}
	h.perform()
	h.serveBorrowers()
}

// --- effects ---

func (h *Host) perform() {
	for h.exit == nil {
		effects := h.node.Take()
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			if h.exit == nil {
				h.do(e)
			}
		}
	}
}

func (h *Host) do(e Effect) {
	switch e := e.(type) {
	case view.Send:
		h.send(e)
	case view.Ping:
		h.ping(e)
	case view.Announce:
		h.world.Announce(e.Fact)
	case view.Stranger:
		h.compare(e)
	case OpenGroup:
		h.openGroup(e)
	case CloseGroup:
		h.closeGroup(e)
	case Compute:
		h.compute(e)
	case CancelCompute:
		h.stopWork()
	case Reduce:
		if h.link != nil && h.linkView == e.View {
			if e.Lent {
				e.Op.Final = h.tellFinals(e.View, e.Op.Seq, e.Op.Final)
			}
			h.link.Start(e.Op)
		}
	case Head:
		if h.link != nil && h.linkView == e.View {
			h.link.Head(e.Header)
		}
	case Fetch:
		h.fetch(e)
	case CancelFetch:
		h.stopFetch()
	case Follow:
		h.follow(e)
	case CancelFollow:
		h.unfollow(e.Number)
	case Save:
		h.save(e)
	case Committed:
		h.counters.Steps++
		h.world.Committed(e)
	case Tell:
		h.world.Tell(e.Event)
	case Exit:
		h.leave(e)
	default:
		panic(fmt.Sprintf("train: an effect without a host: %T", e))
	}
}

func (h *Host) leave(e Exit) {
	h.exit = &e
	for _, c := range h.waiting {
		c.reply(nil, errGone)
	}
	h.waiting = nil
	for _, b := range h.borrowers {
		b.reply(rpc.Piece{}, errGone)
	}
	h.borrowers = nil
	for _, number := range slices.Sorted(maps.Keys(h.stopFollow)) {
		h.unfollow(number)
	}
}

func (h *Host) send(e view.Send) {
	envelope := rpc.Envelope{Trajectory: h.task.Trajectory, From: h.self.String(), Payload: e.Msg.Encode()}
	h.world.Deliver(e.Addr, envelope, func(error) {
		h.event(func(now time.Time) { h.node.Undelivered(now, e.To) })
	})
}

func (h *Host) ping(e view.Ping) {
	h.world.Ping(e.Addr, e.To.Incarnation, e.Timeout, func(answer []byte, err error) {
		var p view.Pong
		if err == nil {
			err = json.Unmarshal(answer, &p)
		}
		h.event(func(now time.Time) {
			if err != nil {
				h.node.PingFailed(now, e, rpc.KindOf(err) != rpc.Timeout, pingReason(err, e.Timeout))
				return
			}
			h.node.Ponged(now, e.To, p)
		})
	})
}

func pingReason(err error, timeout time.Duration) string {
	switch rpc.KindOf(err) {
	case rpc.Timeout:
		return fmt.Sprintf("no answer for %s", timeout)
	case rpc.Unreachable:
		return "connection refused"
	case rpc.Rejected:
		return "its address belongs to another process now"
	}
	return err.Error()
}

// StrangerError tells that a node trains something else.
type StrangerError struct {
	Node, Addr  string
	Differences []string
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("%s (%s) walks another trajectory: %s", e.Node, e.Addr, strings.Join(e.Differences, "; "))
}

// compare finds out in what a node on another trajectory differs. Whoever came
// later, or never trained, does not belong.
func (h *Host) compare(s view.Stranger) {
	h.world.Describe(s.Fact.Addr, func(answer []byte, err error) {
		e := &StrangerError{s.Fact.ID, s.Fact.Addr, h.differences(s.Fact.ID, answer, err)}
		h.event(func(now time.Time) {
			if s.Senior {
				h.node.Abort(e)
				return
			}
			h.world.Tell(Event{Time: now, Kind: "stranger", Node: s.Fact.ID, Text: e.Error() + "; it is not let in"})
		})
	})
}

func (h *Host) differences(id string, answer []byte, err error) []string {
	var other Identity
	if err == nil {
		err = json.Unmarshal(answer, &other)
	}
	if err != nil {
		return []string{"it does not say in what"}
	}
	return h.task.Identity().Differences("this node", id, other)
}

func (h *Host) compute(e Compute) {
	var ready func(lo, hi int)
	if e.Open && h.link != nil && h.linkView == e.View {
		ready = h.link.Ready
	}
	if !h.reducedAt.IsZero() && e.Attempt.Kind == Update {
		h.cost.update += h.world.Now().Sub(h.reducedAt)
	}
	h.reducedAt = time.Time{}
	h.stopWork = h.world.Compute(e.Attempt, e.Range, e.Params, ready, func(c Contribution, err error) {
		h.event(func(now time.Time) { h.node.Computed(now, e.View, c, err) })
	})
}

func (h *Host) fetch(e Fetch) {
	r := rpc.FetchRequest{View: e.View.Fence(), Transition: e.Transition}
	h.stopFetch = h.world.Fetch(e.Donor.Addr, r, func(blob []byte, err error) {
		h.event(func(now time.Time) { h.node.Fetched(now, e.View, blob, err) })
	})
}

func (h *Host) follow(e Follow) {
	h.stopFollow[e.Number] = h.world.Follow(e.Donor.Addr, e.Request, e.Silence, func(p rpc.Piece, err error) {
		delete(h.stopFollow, e.Number)
		h.event(func(now time.Time) { h.node.Followed(now, e.Number, p, err) })
	})
}

func (h *Host) unfollow(number uint64) {
	if stop := h.stopFollow[number]; stop != nil {
		stop()
		delete(h.stopFollow, number)
	}
}

func (h *Host) save(e Save) {
	h.world.Save(e.Snapshot, func(r checkpoint.Result) {
		h.event(func(now time.Time) {
			h.saved(now, r)
			h.node.Saved(now, r.Err)
		})
	})
}

func (h *Host) saved(now time.Time, r checkpoint.Result) {
	s := r.Snapshot
	if r.Err != nil {
		h.counters.SaveErrors++
		h.world.Tell(Event{Time: now, Kind: "checkpoint failed", Step: s.Step, Text: fmt.Sprintf("the checkpoint of step %d could not be written: %v; training goes on", s.Step, r.Err)})
		return
	}
	h.counters.Checkpoints++
	h.world.Record(Event{Time: now, Kind: "checkpoint", Step: s.Step, Text: r.Saved.Path, Millis: millis(r.Took)})
}

func millis(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

// --- the group ---

func (h *Host) openGroup(e OpenGroup) {
	v, name := e.View, e.View.Name()
	cfg := allreduce.GroupConfig{
		Config: h.task.ops(allreduce.Config{Rank: e.Rank, World: v.World(), Fence: name.Fence(), Zones: zonesOf(v)}),
	}
	var addrs []string
	for _, m := range v.Members {
		cfg.Names = append(cfg.Names, m.Node().String())
		addrs = append(addrs, m.Addr)
	}
	h.counters.Views++
	var link Link
	link = h.world.OpenGroup(cfg, addrs, GroupHandlers{
		Done: func(seq uint64, headers [][]byte, total uint64) { h.reduced(name, seq, headers, total) },
		Down: func(note allreduce.ClosingNote) { h.groupDown(v, link, note) },
	})
	h.link, h.linkView = link, name
}

// zonesOf numbers the zones of a view, by rank; nil where there is one.
func zonesOf(v *view.View) (zones []int) {
	numbers := map[string]int{}
	for _, m := range v.Members {
		if _, ok := numbers[m.Zone]; !ok {
			numbers[m.Zone] = len(numbers)
		}
		zones = append(zones, numbers[m.Zone])
	}
	if len(numbers) == 1 {
		return nil
	}
	return zones
}

func (h *Host) reduced(v view.Name, seq uint64, headers [][]byte, total uint64) {
	h.event(func(now time.Time) {
		h.reducedAt = now
		h.node.Reduced(now, v, seq, headers, total)
	})
}

func (h *Host) groupDown(v *view.View, link Link, note allreduce.ClosingNote) {
	h.event(func(now time.Time) {
		name, c := v.Name(), causeOf(v, note)
		h.counters.carried(link.Progress())
		if h.linkView == name {
			h.link, h.linkView = nil, view.Name{}
		}
		if note.Ending != allreduce.Orderly {
			h.counters.Lost++
			if g := h.node.gen; g != nil && g.attempt != nil {
				h.counters.Interrupted++
			}
		}
		h.node.GroupDown(now, name, c)
	})
}

func (h *Host) closeGroup(e CloseGroup) {
	if h.link == nil || h.linkView != e.View {
		return
	}
	blame := ""
	if !e.Cause.Blame.IsZero() {
		blame = e.Cause.Blame.String()
	}
	switch {
	case e.Cause == (view.Cause{}):
		h.link.Close(allreduce.Orderly, "", orderlyReason)
	case e.Cause.Fatal:
		h.link.Close(allreduce.Fatal, blame, e.Cause.Reason)
	default:
		h.link.Close(allreduce.Broken, blame, e.Cause.Reason)
	}
}

// causeOf translates the end of a group into the words of views.
func causeOf(v *view.View, note allreduce.ClosingNote) view.Cause {
	if note.Ending == allreduce.Orderly {
		return view.Cause{}
	}
	return view.Cause{
		Blame: memberNamed(v, note.Blame), By: memberNamed(v, note.By),
		Reason: cmp.Or(note.Reason, "no reason is given"), // a zero cause would be an orderly end
		Fatal:  note.Ending == allreduce.Fatal,
	}
}

// memberNamed finds who a note speaks of; nobody, if it is no member.
func memberNamed(v *view.View, name string) view.Node {
	for _, m := range v.Members {
		if m.Node().String() == name {
			return m.Node()
		}
	}
	return view.Node{}
}

// --- the door ---

// Serve answers a node that copies the state: at once, or when the view that the
// request names has started here too, at the latest after copyPatience. blob
// must not be changed.
func (h *Host) Serve(r rpc.FetchRequest, reply func(blob []byte, err error)) {
	if h.exit != nil {
		reply(nil, errGone)
		return
	}
	h.serve(&copier{r, h.world.Now().Add(copyPatience), reply})
}

func (h *Host) serve(c *copier) {
	blob, err := h.node.Serve(c.View, c.Transition)
	if errors.Is(err, ErrNotHere) && h.world.Now().Before(c.until) {
		h.waiting = append(h.waiting, c)
		return
	}
	c.reply(blob, err)
}

func (h *Host) serveWaiting() {
	all := h.waiting
	h.waiting = nil
	for _, c := range all {
		h.serve(c)
	}
}

// Borrow answers a node that copies in the background: at once, or when what it asks
// for has happened, at the latest after holdFor, then with nothing.
func (h *Host) Borrow(r rpc.FollowRequest, reply func(rpc.Piece, error)) {
	if h.exit != nil {
		reply(rpc.Piece{}, errGone)
		return
	}
	h.lend(&borrowing{FollowRequest: r, until: h.world.Now().Add(holdFor), reply: reply})
}

func (h *Host) lend(b *borrowing) {
	now := h.world.Now()
	p, err := h.node.Borrow(now, b.FollowRequest)
	if p.Packed {
		p.Took = h.world.Now().Sub(now)
	}
	switch {
	case !errors.Is(err, errNotYet):
		b.reply(p, err)
	case now.Before(b.until):
		b.at, b.news = h.node.State().Transition, h.node.early.news
		h.borrowers = append(h.borrowers, b)
	default:
		b.reply(p, nil)
	}
}

// serveBorrowers answers those whose time has come.
func (h *Host) serveBorrowers() {
	due := func(b *borrowing) bool {
		return b.at != h.node.State().Transition || b.news != h.node.early.news || !h.world.Now().Before(b.until)
	}
	if !slices.ContainsFunc(h.borrowers, due) {
		return
	}
	all := h.borrowers
	h.borrowers = nil
	for _, b := range all {
		h.lend(b)
	}
}

// Admit reads a message of another node, for Receive, or says why it is refused.
// Any goroutine may call it.
func Admit(t *Task, e rpc.Envelope) (view.Msg, error) {
	if e.Trajectory != t.Trajectory {
		return view.Msg{}, fmt.Errorf("trajectory %x is not walked here, but %x", e.Trajectory[:4], t.Trajectory[:4])
	}
	return view.DecodeMsg(e.Payload)
}

// AnswerPing answers a ping for a life of a node, 0 for whichever is here: p is
// the Host's newest Pong, s says how its work gets on, link is what the
// running group has handed to its transport. Any goroutine may call it.
func AnswerPing(p view.Pong, asked uint64, s Signs, link rpc.Progress) ([]byte, error) {
	if asked != 0 && asked != p.Fact.Incarnation {
		return nil, errors.New("another process has this address now")
	}
	p.Beat, p.Doing, p.Sent = p.Beat+s.Work+link.FramesOut, s.Doing, nil
	for _, o := range link.Peers {
		p.Sent = append(p.Sent, o.FramesOut)
	}
	return json.Marshal(p)
}
