package train

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/shard"
)

// Node is one node as a machine: it is told what happened and answers with what
// is to be done. It holds the state S and everything that decides about it, and
// knows no goroutine, clock, file or socket: a driver has those.
//
//	        gossip  messages  pings  a group's end   computed  reduced  fetched  saved  time
//	           └───────┴────────┴──────────┴────────────┴─────────┴────────┴──────┴─────┘
//	                                       ▼
//	view.Machine ── Install ──► generation: (fetch) ─► attempt ─► compute ─► reduce ─► commit ─┐
//	     ▲                          ▲                     └───────────── again ◄───────────────┤
//	     └────────── Quiet ─────────┴── the group is gone: S stands at a transition ◄──────────┘
//
// There is one generation at a time, and it ends completely (its group's
// goroutines, its computation, its transfer are gone) before the view machine
// hears of it. So nothing of an old generation can touch the state in a new one.
type Node struct {
	task   *Task
	policy checkpoint.Policy
	views  *view.Machine
	state  *State
	gen    *generation
	out    []Effect

	sums Sums      // where attempts are summed, if they may go into the all-reduce while they are computed
	mean []float32 // receives the mean gradient; the engine's, which rests meanwhile

	told witness // what the last header said of the state

	agreed   uint64  // the transition at which the replicas were last found wholly equal
	sound    uint64  // likewise, and their gradients right: see probe.go
	agreedOn witness // and what all of them said of it

	proved   uint64      // see view.Stand
	recalled view.Recall // likewise

	ahead *Ahead // makes updates while their gradients are still on the way; nil if nobody does

	soundStep  uint64        // the step of the last audit, or since when this node trains
	auditTook  time.Duration // the last one, on the slowest rank
	auditSpent time.Duration // this node's part of it, so far
	clock      func(f func()) time.Duration

	each       Each // shares out work on vectors
	aroundCopy func(copy func())

	spare    *State // the last sound state; also on its way to disk
	kept     uint64 // transition of it; see keep
	keptOn   witness
	writing  bool   // the writer reads spare
	wantSave string // why a snapshot is to be written as soon as that is possible
	unsaved  error  // why the last state of all is not on disk
	blob     []byte // the state at blobAt, encoded for those who copy it
	blobAt   uint64

	lending  Lending
	early    early     // what is lent of the attempt in hand
	lender   *lender   // of copies for those who join; nil while nobody does
	follower *follower // of a group that trains, on the way in; nil if not
	tries    int       // of following that failed, in a row
	asked    uint64    // Follows so far

	even    bool // the pace is not learned: see Config.Even
	leaving bool
	parting *Exit // set when only the last save is waited for
	over    bool

	lost     *loss // the loss that the next generation answers
	own      own
	stuck    map[view.Node]bool // who was given up though it answered
	misgiven int                // how often one of them was back in a view
	stepTime time.Duration
	phases   Phases
}

// generation is a node's part in one view.
type generation struct {
	view  *view.View
	name  view.Name
	rank  int
	start view.Start

	pace   *shard.Pace   // who computes how much
	ranges []shard.Range // what each rank has to compute of the attempt in hand; none where there is nothing to

	open      bool // its group has not ended
	computing bool
	fetching  bool
	moved     bool    // a transition has been completed in it
	catching  bool    // records bring the state to where the view starts
	closing   bool    // nothing new begins
	farewell  bool    // the last all-reduce is under way
	fatal     error   // why the run ends with it; all ranks judge alike, but not at once
	faults    []fault // likewise: who is expelled when it has ended
	recall    bool    // all go back to a sound state when it has ended: gradients are in dispute, or proved wrong
	own       bool    // nobody else is in it, and no gradient of others in the state is unproved
	probes    bool    // ranks tell of gradients in the attempt in hand
	probed    bool    // gradients were found right, with all that the state then had
	probedAt  uint64  // which is that of so many steps
	cause     view.Cause
	leaving   []view.Node
	ended     time.Time // when it was known that it ends

	donor   int // index into start.Donors of the one asked
	seq     uint64
	started bool // the all-reduce of the attempt in hand, which waits for its sums and header
	attempt *Attempt
	stop    bool // this node wants the group to end after the step
	audit   bool // all of the state is compared in the headers of this attempt

	begun    time.Time // of the attempt
	computed time.Time
	input    Input     // of what was computed
	silences []silence // by rank
}

// silence is what is known of a member that may be waited for.
type silence struct {
	asked    time.Time // when it was last asked, or when the generation began
	received uint64    // frames from it
	deaf     time.Time // since when it has sent more than has come
	beat     uint64    // its, as it last answered
	beatAt   time.Time // when that last changed
	doing    string    // what it is at, as it last answered
}

// loss is how the last generation ended, for the story of the next one.
type loss struct {
	at      time.Time // when it was known that it ends
	view    *view.View
	cause   view.Cause
	leaving []view.Node
	step    uint64
	faults  []fault // members that were expelled
}

// Phases is where the time of this process' steps went.
type Phases struct {
	Steps   uint64
	Input   Input
	Compute time.Duration // waiting for samples, forward, backward, rounding
	Reduce  time.Duration // waiting for the slowest, and the ring
}

// Effect is something that a Node wants done, beside those of package view.
type Effect any

// The effects. Those with a View belong to that generation, and so do the events
// that answer them.
type (
	// OpenGroup starts the ring of a view; its end is GroupDown.
	OpenGroup struct {
		View *view.View
		Rank int
	}
	// CloseGroup ends it; a zero cause is an orderly end.
	CloseGroup struct {
		View  view.Name
		Cause view.Cause
	}
	// Compute answers with Computed. Params must not be kept.
	Compute struct {
		View    view.Name
		Attempt *Attempt
		Range   shard.Range
		Params  []float32
		Open    bool // its all-reduce has been started, and takes sums as they are complete
	}
	// CancelCompute hurries a Compute; it is answered all the same.
	CancelCompute struct{ View view.Name }
	// Reduce starts an all-reduce; it is answered by Reduced or GroupDown.
	Reduce struct {
		View view.Name
		Op   allreduce.Op
		Lent bool // what is final is lent: Final is to be told of it
	}
	// Head gives the header of one that was started Open.
	Head struct {
		View   view.Name
		Header []byte
	}
	// Fetch copies the state from a donor; it is answered by Fetched.
	Fetch struct {
		View       view.Name
		Donor      view.Member
		Transition uint64
	}
	// CancelFetch hurries a Fetch; it is answered all the same.
	CancelFetch struct{ View view.Name }
	// Save asks for writing a snapshot; Saved answers.
	Save struct {
		Why      string
		Snapshot *checkpoint.Snapshot
	}
	// Committed tells of a completed transition.
	Committed struct {
		Transition uint64
		Kind       Kind
		Step       uint64 // after it
		Generation uint64
		World      int
		Range      shard.Range // of microbatches that this rank computed
		Repeat     int
		Nonfinite  int       // of the repeats, see Attempt.Rotation
		Doubted    int       // likewise, see Attempt.Doubts
		Samples    uint64    // of the whole step, over all ranks
		Means      []float64 // figures of the step, as Task.Scalars; nil for other kinds
		Epoch      *Epoch    // when the transition ended or evaluated an epoch
		Took       time.Duration
		Input      Input  // of this rank
		Digest     uint64 // of the block of the state that was watched before
		Applied    bool   // an update that was not skipped: there is a gradient
		Total, Own uint64 // the integers of all ranks' gradients and of this rank's, summed mod 2^64
	}
	// Tell is a line of the story.
	Tell struct{ Event Event }
	// Exit ends the node, once.
	Exit struct {
		Err      error
		Finished bool   // the state is final
		Reason   string // in words
	}
)

// FatalError ends the run on every node alike: a step that gives no number, or
// replicas that differ. Starting again would only meet it again.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }
func (e *FatalError) Unwrap() error { return e.Err }

// Event is a line of the story of a run, for journal, status page and terminal.
type Event struct {
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"` // start view lost joined left waiting checkpoint repeat epoch finish ...
	Generation uint64    `json:"generation"`
	Step       uint64    `json:"step"`
	Node       string    `json:"node,omitempty"` // whom it is about
	Text       string    `json:"text"`
	Millis     float64   `json:"ms,omitempty"`   // how long it took
	View       string    `json:"view,omitempty"` // that is running: the first 8 bytes of its name, in hex; "" where none is
}

// NewNode makes a node whose state is s, which it takes over.
func NewNode(t *Task, s *State, cfg view.Config, policy checkpoint.Policy, now time.Time) *Node {
	n := &Node{
		task: t, policy: policy, state: s, spare: t.blank(),
		agreed: nobodyAgrees, sound: nobodyAgrees, kept: nobodyAgrees, soundStep: s.Step, proved: s.Transition,
		each: inTurn, aroundCopy: func(copy func()) { copy() }, clock: func(f func()) time.Duration { f(); return 0 },
	}
	w := s.witness(inTurn)
	n.views = view.New(cfg, view.Stand{Transition: s.Transition, Digest: s.mark(w), Proved: n.proved}, now)
	if s.Transition > 0 { // of a checkpoint: only what is sound is written
		n.spare.copyFrom(s, inTurn)
		n.kept, n.keptOn = s.Transition, w
	}
	n.lending.withDefaults(s)
	if s.Next == Done {
		n.views.Finished(true)
		// Who wrote it may have died before its name was durable: Save sees to that.
		n.wantSave = policy.Due(checkpoint.Moment{Step: s.Step, Finished: true})
	}
	n.drain(now)
	return n
}

// Take returns the effects since the last call, in order.
func (n *Node) Take() []Effect {
	out := n.out
	n.out = nil
	return out
}

func (n *Node) emit(e Effect) { n.out = append(n.out, e) }

// State gives read access to the state between events.
func (n *Node) State() *State { return n.state }

// Views gives read access to the view machine between events.
func (n *Node) Views() *view.Machine { return n.views }

// View returns the view in hand and this node's rank in it, or nil.
func (n *Node) View() (*view.View, int) {
	if n.gen == nil {
		return nil, -1
	}
	return n.gen.view, n.gen.rank
}

// Phases returns where the time went.
func (n *Node) Phases() Phases { return n.phases }

// Digest returns SHA-256 of the whole state.
func (n *Node) Digest() [32]byte { return n.task.digest(n.state) }

// --- events of the cluster ---

// Up takes gossip's word that a node lives or has news.
func (n *Node) Up(now time.Time, f view.Fact) {
	n.views.Up(now, f)
	if n.follower != nil && n.gen == nil {
		n.enlist()
	}
	n.drain(now)
}

// Down takes gossip's word that a node left or seems dead.
func (n *Node) Down(now time.Time, gone view.Fact, left bool) {
	n.views.Down(now, gone, left)
	if f := n.follower; f != nil { // its silence need not be waited out
		if i := slices.IndexFunc(f.donors, func(d donor) bool { return d.Node() == gone.Node() }); i >= 0 {
			n.dismiss(i)
		}
	}
	n.drain(now)
}

// Receive takes a message of another node.
func (n *Node) Receive(now time.Time, m view.Msg) { n.views.Receive(now, m); n.drain(now) }

// Undelivered tells that a message was not delivered.
func (n *Node) Undelivered(now time.Time, to view.Node) {
	n.views.Undelivered(now, to)
	n.drain(now)
}

// Ponged takes the answer to a ping.
func (n *Node) Ponged(now time.Time, who view.Node, p view.Pong) {
	if g := n.gen; g != nil {
		if rank := g.view.Rank(who); rank >= 0 {
			g.judge(now, rank, p)
		}
	}
	n.views.Ponged(now, who, p)
	n.drain(now)
}

// PingFailed tells that a ping was not answered.
func (n *Node) PingFailed(now time.Time, p view.Ping, certain bool, reason string) {
	n.views.PingFailed(now, p, certain, reason)
	n.drain(now)
}

// Measured tells how fast this node is, in samples per second.
func (n *Node) Measured(now time.Time, speed float32) { n.views.Measured(speed); n.drain(now) }

// Ready tells that gossip has found the others, or that there are none.
func (n *Node) Ready(now time.Time) { n.views.Ready(now); n.drain(now) }

// Abort ends the node with an error that the world has given it.
func (n *Node) Abort(err error) { n.exit(Exit{Err: err}) }

// Leave starts an orderly exit.
func (n *Node) Leave(now time.Time) {
	if n.leaving || n.over {
		return
	}
	n.leaving = true
	n.views.Leave(now)
	n.drain(now)
}

// Wire is what the driver knows of the group's link to one member.
type Wire struct {
	Waiting  time.Time // since when the group waits for the member, zero if not
	Sending  time.Time // since when it has not taken a frame, zero if not
	Received uint64    // frames from it
}

// Tick lets time pass. wires are by rank; none where there is no group.
func (n *Node) Tick(now time.Time, wires []Wire) {
	if g := n.gen; g != nil && g.open {
		for rank, w := range wires {
			if n.gen == g && !g.closing && rank != g.rank {
				n.watch(now, rank, w)
			}
		}
	}
	n.views.Tick(now)
	if l := n.lender; l != nil && !l.forget(now) {
		n.lender = nil
	}
	if n.gen != nil && n.gen.computing {
		n.draft()
	}
	n.drain(now)
}

// Limits of patience with a silent member. Whether it lives is asked after
// eight steps as they usually take, but within these limits: to ask costs little, and
// an answer in time nothing. One that
// answers may compute for as long as it gets on with it: it is given up when it
// has done nothing, not an operation of the model nor the reading of a sample, for
// the greater of stuckFloor and eight steps, twice as long for each time that one
// who was given up so came back; or when for deafFor what it sent has not come.
const (
	stallFloor = 250 * time.Millisecond
	stallMost  = time.Second
	usualSteps = 8
	deafFor    = 30 * time.Second
	stuckFloor = 10 * time.Second
	stuckFirst = 10 * time.Minute // while no step shows how long one takes
	mostDouble = 6
)

// stuckAfter is how long a member may do nothing.
func (n *Node) stuckAfter() time.Duration {
	if n.stepTime == 0 {
		return stuckFirst
	}
	return max(stuckFloor, usualSteps*n.stepTime) << min(n.misgiven, mostDouble)
}

// watch asks whether a silent member lives, and gives it up at last.
func (n *Node) watch(now time.Time, rank int, w Wire) {
	g := n.gen
	s := &g.silences[rank]
	s.received = w.Received
	patience, stuck := stallMost, n.stuckAfter()
	if n.stepTime > 0 {
		patience = min(stallMost, max(stallFloor, usualSteps*n.stepTime))
	}
	waits := func(since time.Time, limit time.Duration) bool { return !since.IsZero() && now.Sub(since) > limit }
	stalls := func(since time.Time) bool { return !since.IsZero() && now.Sub(since) >= patience }
	if (stalls(w.Waiting) || stalls(w.Sending)) && now.Sub(s.asked) >= patience {
		s.asked = now
		n.views.Suspect(now, g.view.Members[rank].Node())
	}
	giveUp := func(format string, args ...any) {
		n.closeGroup(now, view.Cause{Blame: g.view.Members[rank].Node(), By: n.views.Self(), Reason: fmt.Sprintf("it answers, but "+format, args...)})
	}
	switch {
	case waits(w.Sending, deafFor):
		giveUp("has taken nothing for %s", deafFor)
	case waits(w.Waiting, deafFor) && waits(s.deaf, deafFor):
		giveUp("what it sends has not come for %s", deafFor)
	case waits(w.Waiting, stuck) && waits(s.beatAt, stuck):
		if n.stuck == nil {
			n.stuck = map[view.Node]bool{}
		}
		n.stuck[g.view.Members[rank].Node()] = true
		giveUp("has done nothing for %s: %s", stuck.Round(time.Second), cmp.Or(s.doing, "it computes"))
	}
}

// judge compares what a member says that it has sent here with what came.
func (g *generation) judge(now time.Time, rank int, p view.Pong) {
	s := &g.silences[rank]
	if p.Running == g.name && g.rank < len(p.Sent) && p.Sent[g.rank] <= s.received {
		s.deaf = time.Time{}
	} else if s.deaf.IsZero() {
		s.deaf = now
	}
	if s.doing = p.Doing; p.Beat != s.beat || s.beatAt.IsZero() {
		s.beat, s.beatAt = p.Beat, now
	}
}

// drain performs what the view machine wants, and passes on what is for the driver.
func (n *Node) drain(now time.Time) {
	for {
		effects := n.views.Take()
		if n.over {
			return
		}
		if len(effects) == 0 {
			break
		}
		for _, e := range effects {
			n.perform(now, e)
		}
	}
	if n.leaving && n.gen == nil && n.parting == nil && !n.views.Bound() {
		n.part(Exit{Reason: "left"})
	}
}

func (n *Node) perform(now time.Time, e view.Effect) {
	switch e := e.(type) {
	case view.Boundary:
		if n.gen != nil {
			n.gen.stop = true
		}
	case view.Halt:
		n.closeGroup(now, e.Cause)
	case view.Install:
		n.install(now, e)
	case view.Fail:
		n.exit(Exit{Err: &FatalError{e.Err}})
	case view.Expelled:
		n.exit(Exit{Err: &ExpelledError{n.views.Self().ID, e.Reason, e.Final}})
	case view.Over:
		n.exit(Exit{Reason: fmt.Sprintf("the run is finished: %s has the final state of transition %d", e.Fact.ID, e.Fact.Transition)})
	case view.Note:
		n.tell(now, e.Kind, e.Node.ID, e.Text, 0)
	default:
		n.emit(e)
	}
}

func (n *Node) tell(now time.Time, kind, node, text string, took time.Duration) {
	e := Event{Time: now, Kind: kind, Step: n.state.Step, Node: node, Text: text, Millis: float64(took.Microseconds()) / 1000}
	if n.gen != nil {
		name := n.gen.view.Name()
		e.Generation, e.View = n.gen.view.Generation, hex.EncodeToString(name[:8])
	}
	n.emit(Tell{e})
}

func (n *Node) exit(e Exit) {
	if n.over {
		return
	}
	n.over = true
	if n.gen != nil {
		n.emit(CloseGroup{n.gen.name, n.lastWords(e)})
		n.hurry()
	}
	n.emit(e)
}

// lastWords tells the group why this node goes. Who has judged that the whole run
// ends tells those that have not.
func (n *Node) lastWords(e Exit) view.Cause {
	me := n.views.Self()
	fatal := (*FatalError)(nil)
	switch {
	case errors.As(e.Err, &fatal):
		return view.Cause{By: me, Reason: fatal.Error(), Fatal: true}
	case e.Err != nil:
		return view.Cause{Blame: me, By: me, Reason: e.Err.Error()}
	}
	return view.Cause{Blame: me, By: me, Reason: e.Reason}
}

// --- a generation ---

func (n *Node) install(now time.Time, in view.Install) {
	g := &generation{view: in.View, name: in.View.Name(), rank: in.Rank, start: in.Start, pace: shard.NewPace(in.View.World()), open: true, silences: make([]silence, in.View.World())}
	for i := range g.silences {
		g.silences[i].asked = now
	}
	for _, m := range in.View.Members {
		if n.stuck[m.Node()] {
			delete(n.stuck, m.Node())
			n.misgiven++
		}
	}
	n.gen = g
	n.ahead.restart()
	n.emit(OpenGroup{in.View, in.Rank})
	n.story(now)
	if n.leaving {
		g.stop = true
	}
	switch {
	case n.stands(in):
		n.letGo()
		n.enter(now)
	case n.catchUp():
	default:
		n.letGo()
		n.fetch()
	}
}

// stands tells that the view starts from the state that is here.
func (n *Node) stands(in view.Install) bool {
	return n.state.Transition == in.Start.Transition &&
		(len(in.Start.Donors) == in.View.World() || slices.Contains(in.Start.Donors, in.Rank) || n.mark() == in.Start.Digest)
}

// enter begins to train from the state that the view starts from.
func (n *Node) enter(now time.Time) {
	g := n.gen
	n.recalled = g.start.Recall
	g.own = g.view.World() == 1 && n.proved == n.state.Transition
	n.begin(now, n.task.attempt(n.state))
}

// stand tells where the state stands, to be held against those of others.
func (n *Node) stand() view.Stand {
	return view.Stand{Transition: n.state.Transition, Digest: n.mark(), Proved: n.proved, Recall: n.recalled}
}

// story tells in one line what changed and what it cost.
func (n *Node) story(now time.Time) {
	g := n.gen
	nodes, goOn, start := fmt.Sprintf("%d nodes (%s)", g.view.World(), strings.Join(g.view.IDs(), ", ")), "go on", "start"
	if g.view.World() == 1 {
		nodes, goOn, start = "1 node ("+g.view.Members[0].ID+")", "goes on", "starts"
	}
	l := n.lost
	n.lost = nil
	if l == nil {
		n.tell(now, "view", "", fmt.Sprintf("generation %d: %s %s with step %d", g.view.Generation, nodes, start, n.state.Step), 0)
		return
	}
	kind, who, what := l.compare(g.view)
	took := now.Sub(l.at)
	n.tell(now, kind, who, fmt.Sprintf("%s; %s %s with step %d after %d ms", what, nodes, goOn, n.state.Step, took.Milliseconds()), took)
}

// compare says what became of the members of the view before.
func (l *loss) compare(v *view.View) (kind, who, what string) {
	gone, left := l.missing(v)
	joined := ids(v, func(m view.Member) bool { return l.view.Rank(m.Node()) < 0 })
	switch {
	case l.faults != nil:
		who = strings.Join(l.expelled(), ", ")
		return "lost", who, fmt.Sprintf("%s expelled at step %d", who, l.step)
	case gone != "":
		return "lost", gone, fmt.Sprintf("%s lost at step %d: %s", gone, l.step, cmp.Or(l.cause.Reason, "no answer"))
	case left != "":
		return "left", left, fmt.Sprintf("%s left at step %d", left, l.step)
	case joined != "":
		return "joined", joined, fmt.Sprintf("%s joined at step %d", joined, l.step)
	case !l.cause.Blame.IsZero():
		return "link", l.cause.Blame.ID, fmt.Sprintf("the link between %s and %s broke at step %d: %s", l.cause.By.ID, l.cause.Blame.ID, l.step, l.cause.Reason)
	case l.cause.Reason != "":
		return "link", "", fmt.Sprintf("the ring broke at step %d: %s", l.step, l.cause.Reason)
	}
	return "view", "", fmt.Sprintf("generation %d at step %d", v.Generation, l.step)
}

// expelled names those that were.
func (l *loss) expelled() (names []string) {
	for _, f := range l.faults {
		names = append(names, l.view.Members[f.rank].ID)
	}
	return names
}

// missing names the members that are not in v: those that were lost, and those
// that left in order.
func (l *loss) missing(v *view.View) (gone, left string) {
	is := func(leaver bool) func(m view.Member) bool {
		return func(m view.Member) bool {
			return v.Rank(m.Node()) < 0 && slices.Contains(l.leaving, m.Node()) == leaver
		}
	}
	return ids(l.view, is(false)), ids(l.view, is(true))
}

// ids lists the members of v that are of a sort, its coordinator marked.
func ids(v *view.View, is func(view.Member) bool) string {
	var names []string
	for _, m := range v.Members {
		switch {
		case is(m) && m.Node() == v.Proposer && v.World() > 1:
			names = append(names, m.ID+" (coordinator)")
		case is(m):
			names = append(names, m.ID)
		}
	}
	return strings.Join(names, ", ")
}

func (n *Node) fetch() {
	g := n.gen
	// Those who copy spread over the donors by rank.
	d := g.start.Donors[(g.rank+g.donor)%len(g.start.Donors)]
	g.fetching = true
	n.emit(Fetch{g.name, g.view.Members[d], g.start.Transition})
}

// Fetched takes the state that was copied, or why it was not.
func (n *Node) Fetched(now time.Time, v view.Name, blob []byte, err error) {
	g := n.gen
	if g == nil || g.name != v || !g.fetching || n.over {
		return
	}
	g.fetching = false
	if g.closing {
		n.settle(now)
		return
	}
	s, err := n.accept(blob, err)
	if err == nil {
		n.adopt(s)
		if s.Next == Done { // others have made the last transition; this node's disk lacks it all the same
			n.wantSave = n.policy.Due(checkpoint.Moment{Step: s.Step, Finished: true})
		}
		n.tell(now, "copied", "", fmt.Sprintf("copied the state of step %d (%d bytes)", s.Step, len(blob)), 0)
		n.enter(now)
		return
	}
	n.tell(now, "copy", "", "copying the state failed: "+err.Error(), 0)
	if g.donor++; g.donor < len(g.start.Donors) {
		n.fetch()
		return
	}
	n.closeGroup(now, view.Cause{By: n.views.Self(), Reason: "no donor could give the state"})
}

// accept verifies a copied state before it is believed.
func (n *Node) accept(blob []byte, err error) (*State, error) {
	if err != nil {
		return nil, err
	}
	snap, err := checkpoint.Unmarshal(blob)
	if err != nil {
		return nil, err
	}
	s, err := n.task.restore(snap)
	if err == nil && s.mark(s.witness(n.each)) != n.gen.start.Digest {
		return nil, errors.New("the copy is not the state that the view starts from")
	}
	return s, err
}

// ErrNotHere says that the view of a request is not the one that runs here: not
// yet, or not any more.
var ErrNotHere = errors.New("another view runs here")

// Serve encodes the state for a node that copies it.
func (n *Node) Serve(fence allreduce.Fence, transition uint64) ([]byte, error) {
	if n.gen == nil || allreduce.Fence(n.gen.name.Fence()) != fence {
		return nil, ErrNotHere
	}
	if transition != n.state.Transition {
		return nil, fmt.Errorf("the state here is at transition %d, not %d", n.state.Transition, transition)
	}
	if n.blob == nil || n.blobAt != transition {
		n.blob, n.blobAt = checkpoint.Marshal(n.task.snapshot(n.state)), transition
	}
	return n.blob, nil
}

func (n *Node) begin(now time.Time, a *Attempt) {
	g := n.gen
	n.ahead.stop()
	n.early.end()
	g.attempt, g.begun, g.computed, g.input = a, now, now, Input{}
	g.farewell = a.Kind == Farewell
	a.Probes = nil
	if g.probes = g.probing(a); g.probes {
		a.Probes = g.draw(n.task, a)
	}
	micro := n.task.microbatches(a)
	if g.ranges = nil; micro == 0 && len(a.Probes) == 0 {
		n.reduce(now, Contribution{}, 0)
		return
	}
	var r shard.Range
	if micro > 0 {
		g.ranges = g.deal(micro, a.Rotation)
		r = g.ranges[g.rank]
	}
	if a.Kind == Update && n.sums.Grad != nil && g.view.World() > 1 && r.Len() > 0 {
		n.startReduce(nil, n.sums)
	}
	g.computing = true
	n.emit(Compute{g.name, a, r, n.state.params, g.started})
}

// deal says what each rank computes of an attempt. In the first transition of a view
// those who have to copy before, or to go over a record, compute nothing: the others
// are done when they come.
func (g *generation) deal(micro, rotation int) []shard.Range {
	donors := g.start.Donors
	if g.moved || len(donors) == g.view.World() {
		return g.pace.Assign(micro, rotation)
	}
	ranges := make([]shard.Range, g.view.World())
	for i, r := range shard.NewPace(len(donors)).Assign(micro, rotation) {
		ranges[donors[i]] = r
	}
	return ranges
}

// Computed takes this rank's contribution to the attempt in hand.
func (n *Node) Computed(now time.Time, v view.Name, c Contribution, err error) {
	g := n.gen
	if g == nil || g.name != v || !g.computing || n.over {
		return
	}
	g.computing = false
	switch {
	case g.closing:
		n.settle(now)
	case err != nil:
		n.exit(Exit{Err: err})
	default:
		n.reduce(now, c, now.Sub(g.begun))
	}
}

func (n *Node) reduce(now time.Time, c Contribution, took time.Duration) {
	g := n.gen
	g.computed, g.input = now, c.Input
	var flags byte
	if g.stop || n.leaving {
		flags |= flagStop
	}
	if n.leaving {
		flags |= flagLeave
	}
	if n.saveAhead() || n.auditDue() {
		flags |= flagAudit
	}
	n.told = witness{watch: n.state.watch(n.each)}
	if g.audits() {
		n.spend(func() { n.told.audit = n.state.audit(n.each) })
	}
	n.auditSpent += c.Probing
	head := n.task.header(g.attempt, c, n.told, flags, uint64(took), uint64(n.auditSpent))
	n.mean = c.Mean
	if g.started {
		g.started = false
		n.emit(Head{g.name, head})
		return
	}
	n.startReduce(head, Sums{c.Grad, c.Mean})
}

// startReduce starts the all-reduce of the attempt in hand: when all of it is
// computed, or, without a header, before.
func (n *Node) startReduce(head []byte, s Sums) {
	g := n.gen
	g.started = head == nil
	g.seq++
	op := allreduce.Op{Seq: g.seq, Header: head, Open: g.started, Each: n.each}
	if g.attempt.Kind == Update {
		n.task.reduce(&op, g.attempt, s, n.task.Plan.Count(g.attempt.Step))
		if g.view.World() > 1 && n.ahead.wants() {
			n.ahead.begin(n.state, n.task.rate(n.state, n.state.Step), s.Mean)
			op.Final = n.ahead.final
		}
	}
	lent := g.attempt.Kind == Update && n.lender != nil
	if lent {
		n.early.begin(attemptID(g.name, g.attempt), s.Mean)
	}
	n.emit(Reduce{g.name, op, lent})
}

// Reduced takes the headers of a complete all-reduce, and the sum of its totals;
// the mean gradient lies in the memory that the op was given.
func (n *Node) Reduced(now time.Time, v view.Name, seq uint64, headers [][]byte, total uint64) {
	g := n.gen
	if g == nil || g.name != v || g.seq != seq || g.closing || n.over {
		return
	}
	vd := n.task.judge(g.attempt, g.view, g.ranges, headers, total)
	n.learnPace(now, vd)
	if vd.probed && vd.again == nil {
		g.probed, g.probedAt = true, g.attempt.Step
	}
	if vd.torn == nil && g.faults == nil { // a dispute may outlive its group: who was wrong is not known then, but that somebody was
		g.recall = vd.again != nil && vd.again.Dispute.proves()
	}
	switch {
	case vd.torn != nil:
		n.closeGroup(now, view.Cause{By: n.views.Self(), Reason: vd.torn.Error()})
	case g.fatal != nil:
		n.exit(Exit{Err: &FatalError{g.fatal}})
	case vd.fatal != nil:
		g.fatal = vd.fatal
		n.partGroup(now, vd)
	case g.accuses(vd):
		n.accuse(now, vd)
	case vd.again != nil: // at a farewell too, where gradients are probed: nobody parts before it is known who is wrong
		n.again(now, vd)
	case g.farewell:
		n.bye()
	default:
		n.commit(now, vd, headers, total)
	}
	n.drain(now)
}

// learnPace takes into account how long each rank has computed.
func (n *Node) learnPace(now time.Time, vd *verdict) {
	g := n.gen
	if n.even || vd.torn != nil || g.attempt.Kind != Update || !g.pace.Observe(g.ranges, vd.work) {
		return
	}
	next := g.pace.Assign(n.task.microbatches(g.attempt), 0)
	var parts []string
	for rank, r := range next {
		parts = append(parts, fmt.Sprintf("%s %d", g.view.Members[rank].ID, r.Len()))
	}
	n.tell(now, "pace", "", "microbatches by speed: "+strings.Join(parts, ", "), 0)
}

func (n *Node) again(now time.Time, vd *verdict) {
	if vd.again.Rotation != n.gen.attempt.Rotation {
		n.tell(now, "nonfinite", "", fmt.Sprintf("a result of step %d is not finite: computed once more, by others where there are any, before it is believed", n.state.Step), 0)
	}
	if vd.again.Doubts != n.gen.attempt.Doubts {
		n.tell(now, "sums", "", fmt.Sprintf("%s at step %d: computed once more before it is believed", vd.doubt, n.state.Step), 0)
	}
	n.begin(now, vd.again)
}

func (n *Node) commit(now time.Time, vd *verdict, headers [][]byte, total uint64) {
	a, s := n.gen.attempt, n.state
	n.audited(vd)
	n.agree()
	n.gen.audit = vd.audit
	n.gen.moved = true
	n.lend(a, n.gen.view, vd, headers, total)
	n.task.commit(s, a, vd, n.mean, n.ahead, n.each)
	n.blob = nil
	n.views.Progress(s.Transition)
	n.measure(now, a)
	n.report(now, a, vd, n.told.watch, headerSum(headers[n.gen.rank]))
	n.save(s, a)
	n.views.Finished(s.Next == Done)
	if vd.stop && s.Next != Done {
		n.partGroup(now, vd)
		return
	}
	n.begin(now, n.task.attempt(s))
}

// partGroup says farewell: once this all-reduce is complete, everybody has
// committed what came before it, or has come to the same fatal verdict. Whoever
// closed at once would leave others without the headers that tell them: the very
// node that is at fault could go on alone.
func (n *Node) partGroup(now time.Time, vd *verdict) {
	g := n.gen
	g.ended = now
	for _, rank := range vd.leave {
		if rank != g.rank {
			g.leaving = append(g.leaving, g.view.Members[rank].Node())
		}
	}
	n.begin(now, &Attempt{Transition: n.state.Transition, Kind: Farewell, Step: n.state.Step})
}

// bye ends a group after its farewell.
func (n *Node) bye() {
	n.agree()
	n.gen.closing = true
	n.emit(CloseGroup{View: n.gen.name})
}

func (n *Node) measure(now time.Time, a *Attempt) {
	g := n.gen
	if a.Kind != Update {
		return
	}
	n.phases.Steps++
	n.phases.Input.Waited += g.input.Waited
	n.phases.Input.Read += g.input.Read
	n.phases.Compute += g.computed.Sub(g.begun)
	n.phases.Reduce += now.Sub(g.computed)
	took := now.Sub(g.begun)
	n.ahead.measured(took)
	if n.stepTime == 0 {
		n.stepTime = took
	}
	n.stepTime += (took - n.stepTime) / 16
}

func (n *Node) report(now time.Time, a *Attempt, vd *verdict, watched, own uint64) {
	g, s := n.gen, n.state
	c := Committed{
		Transition: s.Transition, Kind: a.Kind, Step: s.Step, Generation: g.view.Generation, World: g.view.World(),
		Repeat: a.Repeat, Samples: vd.count, Took: now.Sub(g.begun), Input: g.input, Digest: watched,
		Nonfinite: a.Rotation, Doubted: a.Doubts, Applied: a.Kind == Update && !vd.skip, Total: vd.sum, Own: own,
	}
	if g.ranges != nil {
		c.Range = g.ranges[g.rank]
	}
	if a.Kind == Update && !vd.skip {
		c.Means = vd.figures
	}
	if len(s.History) > 0 && (a.Kind == Evaluate || s.Step == s.History[len(s.History)-1].Step && a.Kind == Update) {
		e := s.History[len(s.History)-1]
		c.Epoch = &e
	}
	n.emit(c)
	if vd.skip {
		n.tell(now, "skipped", "", fmt.Sprintf("the update of step %d is skipped: its gradient is not finite", a.Step), 0)
	}
	if s.Stopping.Stopped > 0 && a.Kind == Evaluate {
		n.tell(now, "early stop", "", fmt.Sprintf("early stopping after epoch %d: %s was best in epoch %d (%.6g)", s.Stopping.Stopped, n.task.Job.EarlyStopping.Monitor, s.Stopping.BestEpoch, float64(s.Stopping.Best)), 0)
	}
}

// closeGroup ends the group in hand for a cause.
func (n *Node) closeGroup(now time.Time, c view.Cause) {
	g := n.gen
	if g == nil || g.closing {
		return
	}
	g.closing, g.cause, g.ended = true, c, now
	n.emit(CloseGroup{g.name, c})
	n.hurry()
}

func (n *Node) hurry() {
	if n.gen.computing {
		n.emit(CancelCompute{n.gen.name})
	}
	if n.gen.fetching {
		n.emit(CancelFetch{n.gen.name})
	}
}

// GroupDown tells that a group has ended and its goroutines are gone. A zero
// cause says that a neighbour ended it in order, which it does only after a
// farewell that was complete: so is ours.
func (n *Node) GroupDown(now time.Time, v view.Name, c view.Cause) {
	g := n.gen
	if g == nil || g.name != v || n.over {
		return
	}
	g.open = false
	if c.Fatal {
		n.exit(Exit{Err: &FatalError{errors.New(c.Reason)}})
		return
	}
	if orderly := c == (view.Cause{}); orderly && g.farewell {
		g.closing, g.cause = true, c // whatever this node has feared meanwhile
		if g.probes {
			g.probed, g.probedAt = true, g.attempt.Step
		}
		n.agree() // the neighbour has compared all headers, ours among them
	} else if !g.closing {
		g.closing, g.cause = true, c
		if orderly {
			g.cause.Reason = "a neighbour ended the group out of turn"
		}
		if g.ended.IsZero() {
			g.ended = now
		}
		n.hurry()
	}
	n.settle(now)
}

// settle ends the generation once all of it is gone.
func (n *Node) settle(now time.Time) {
	g := n.gen
	if g.open || g.computing || g.fetching {
		return
	}
	n.gen = nil
	n.ahead.stop()
	n.early.end()
	n.letGo()
	orderly := g.cause == view.Cause{}
	n.lost = &loss{g.ended, g.view, g.cause, g.leaving, n.state.Step, g.faults}
	switch {
	case g.fatal != nil:
		n.exit(Exit{Err: &FatalError{g.fatal}})
	case n.expel(now, g):
	case n.state.Next == Done && orderly && g.farewell && g.faults == nil:
		n.part(Exit{Finished: true, Reason: "finished"})
	case n.leaving && !n.views.Bound():
		n.part(Exit{Reason: "left"})
	default:
		if g.own {
			n.proved = n.state.Transition
		}
		n.views.Quiet(now, n.stand(), g.cause, g.leaving)
		n.drain(now)
	}
}

// --- checkpoints ---

// save has a snapshot written if one is due, as soon as all agree on it. Training
// waits for a copy in memory, never for the disk.
func (n *Node) save(s *State, a *Attempt) {
	why := n.policy.Due(checkpoint.Moment{Step: s.Step, Update: a.Kind == Update, Finished: s.Next == Done})
	final := s.Next == Done
	// A writer that is still busy skips this one: all replicas hold the same
	// transitions, or none.
	if why != "" && (final || n.policy.Writes(n.gen.rank) && !n.writing) {
		n.wantSave = why
	}
}

// saveAhead tells that this node will write the state that the attempt in hand
// leads to, or waits to write, or to lend, the one that stands here.
func (n *Node) saveAhead() bool {
	a := n.gen.attempt
	return n.wantSave != "" || n.lender != nil && n.lender.wanted || a.Kind == Update && n.policy.Writes(n.gen.rank) &&
		n.policy.Due(checkpoint.Moment{Step: a.Step + 1, Update: true}) != ""
}

// audits tells that all of the state is compared in the headers of the attempt in
// hand: because somebody will write it, or because a group or the run ends.
func (g *generation) audits() bool {
	return g.audit || g.attempt.Kind != Update && g.attempt.Kind != Evaluate
}

// nobodyAgrees is no transition: what stands here has been compared by nobody.
const nobodyAgrees = ^uint64(0)

// agree tells that the headers of all ranks show one state, the one that stands
// here, if they showed all of it. Only such a state is written: what a flipped
// bit has made of it in this node's memory must not outlive the run.
func (n *Node) agree() {
	g := n.gen
	if !g.audits() || g.atFault(g.rank) || g.recall {
		return
	}
	n.agreed, n.agreedOn = n.state.Transition, n.told
	if g.sound(n.state) {
		n.sound, n.soundStep = n.state.Transition, n.state.Step
		if g.view.World() > 1 || g.own {
			n.proved = n.state.Transition
		}
		n.keep()
		n.trySave()
		n.tryLend()
	}
}

func (n *Node) trySave() {
	if n.wantSave == "" || n.writing || n.sound != n.state.Transition {
		return
	}
	if n.keep(); n.over {
		return
	}
	why := n.wantSave
	n.wantSave, n.writing = "", true
	n.emit(Save{why, n.task.snapshot(n.spare)})
}

// keep copies the sound state that stands here, for the writer, and to go back to.
// While the writer still reads an older one, that is all there is to go back to. It
// is all that training waits for when a checkpoint is due. The copy is made here
// and now: a moment later the state has moved on.
func (n *Node) keep() {
	if n.writing || n.kept == n.state.Transition && n.keptOn == n.agreedOn {
		return
	}
	same := false
	n.spend(func() {
		n.aroundCopy(func() { n.spare.copyFrom(n.state, n.each) })
		same = n.agreedOn == n.spare.witness(n.each)
	})
	n.kept, n.keptOn = n.state.Transition, n.agreedOn
	if !same {
		n.kept = nobodyAgrees
		n.exit(Exit{Err: n.ownFault(fmt.Sprintf("the state of %s differs from what it was a moment ago, at transition %d: its memory is at fault", n.views.Self().ID, n.state.Transition))})
	}
}

// Share has each share out what the node does with whole vectors, between events
// too: in the all-reduce. Without it the node does it in turn.
func (n *Node) Share(each Each) { n.each = each }

// TimeCopies has around call, and time, what copies the state for checkpoints.
func (n *Node) TimeCopies(around func(copy func())) { n.aroundCopy = around }

// Saved tells that the writer is done with a snapshot.
func (n *Node) Saved(now time.Time, err error) {
	n.writing = false
	if n.over {
		return
	}
	if n.unsaved = nil; n.parting != nil || n.spare.Next == Done {
		n.unsaved = err
	}
	n.trySave()
	n.tryPart()
}

// part ends the node as soon as its state is on disk, as far as it should be.
func (n *Node) part(e Exit) {
	if n.leaving && n.state.Transition > 0 && n.state.Next != Done {
		n.wantSave = n.policy.Due(checkpoint.Moment{Step: n.state.Step, Stopping: true})
	}
	if n.sound != n.state.Transition {
		n.wantSave = "" // nobody has compared it since; an older one is on disk, or with others
	}
	n.parting = &e
	n.trySave()
	n.tryPart()
}

func (n *Node) tryPart() {
	if n.parting != nil && !n.writing && n.wantSave == "" {
		n.parting.Err = errors.Join(n.parting.Err, n.unsaved)
		n.exit(*n.parting)
	}
}

// Pong returns the answer to a ping, but for Doing, Sent and most of Beat, which the driver knows.
func (n *Node) Pong(now time.Time) view.Pong {
	coordinator, _ := n.views.Status(now)
	p := view.Pong{Fact: n.views.Fact(), Generation: n.views.Generation(), Coordinator: coordinator, Beat: n.own.idle}
	if n.gen != nil {
		p.Running = n.gen.name
	}
	return p
}
