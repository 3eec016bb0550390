package train

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/kernel"
)

// Config says how a node takes part in a run. Nothing in it can change a bit of
// the result.
type Config struct {
	Task *Task

	// Gossip says who the node is and whom it looks for: Name, Bind, Advertise,
	// Join, Secret, Insecure, Label and the intervals. Incarnation is drawn if 0.
	Gossip cluster.Config
	GRPC   string // address of the node's server; "" is the gossip host, port 0
	Zone   string // nodes of a zone are neighbours in the ring

	Dir         string // run directory of this node: its journal
	Checkpoints string // where it writes states, and looks for one to start from
	Threads     int    // microbatches computed at the same time; 0 is GOMAXPROCS
	MinNodes    int    // below it training waits; 0 is the job's
	Expect      int    // nodes to wait for before the very first step
	ExpectFor   time.Duration

	Log  *slog.Logger // nil: silence
	Line func(Line)   // told of everything, by one goroutine; nil for none
}

// Run takes part in training until the run is finished, ctx ends (an orderly
// leave at the end of the step), or this node cannot go on, which is the error.
// The others do not depend on it.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := checkArithmetic(); err != nil {
		return Result{}, err
	}
	d, err := newDriver(cfg)
	if err != nil {
		return Result{}, err
	}
	defer d.journal.close()
	state, err := d.load()
	if err != nil {
		return Result{}, err
	}
	if err := d.open(state); err != nil {
		return Result{}, err
	}
	d.loop(ctx)
	return d.close()
}

// driver is the thin part of a node that has goroutines, clocks, files and
// sockets. One goroutine, loop, owns the Node; everything else posts to it.
type driver struct {
	cfg     Config
	task    *Task
	log     *slog.Logger
	self    view.Fact
	node    *Node
	box     *mailbox
	engine  *Engine
	pool    *pool
	server  *rpc.Server
	client  *rpc.Client
	gossip  *cluster.Gossip
	store   *checkpoint.Store
	writer  *checkpoint.Writer
	journal *journal

	ctx    context.Context // of calls; ends when the node has exited
	cancel context.CancelFunc
	calls  sync.WaitGroup

	group     *rpc.Group
	groupName view.Name
	stopWork  context.CancelFunc // of the computation in hand
	stopFetch context.CancelFunc
	waiting   []*fetchRequest // for a state that is not here yet

	pong     atomic.Pointer[view.Pong]
	groupNow atomic.Pointer[rpc.Group] // what pongs tell of
	gone     atomic.Bool               // the node has exited
	status   atomic.Pointer[Status]
	shown    shown

	exit *Exit
}

// fetchRequest is a node that copies our state.
type fetchRequest struct {
	fence allreduce.Fence
	at    uint64
	until time.Time
	reply chan fetchReply // holds one
}

type fetchReply struct {
	blob []byte
	err  error
}

const (
	tickEvery = 50 * time.Millisecond
	// orderly is the reason in a closing note that blames nobody: the group
	// ended after its farewell.
	orderly = "end of the generation"
)

// checkArithmetic refuses a host on which the promise cannot hold.
func checkArithmetic() error {
	one := uint16(1)
	if binary.NativeEndian.Uint16(binary.LittleEndian.AppendUint16(nil, one)) != one {
		return errors.New("this machine stores numbers big-endian, which dlnode does not support")
	}
	return kernel.CheckMode()
}

// ConfigError tells what is wrong with a Config, before anything is opened.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

func newDriver(cfg Config) (*driver, error) {
	if cfg.Threads == 0 {
		cfg.Threads = runtime.GOMAXPROCS(0)
	}
	if cfg.MinNodes == 0 {
		cfg.MinNodes = cfg.Task.Job.MinNodes
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for cfg.Gossip.Incarnation == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		cfg.Gossip.Incarnation = binary.LittleEndian.Uint64(b[:])
	}
	if n := len(cfg.Gossip.Name); n == 0 || n > 64 || strings.ContainsAny(cfg.Gossip.Name, "#/ ") {
		return nil, &ConfigError{fmt.Errorf("node name %q: want 1 to 64 characters, without '#', '/' and spaces", cfg.Gossip.Name)}
	}
	cfg.Gossip.Wait = true
	cfg.Gossip.Log = cfg.Log
	if err := cfg.Gossip.Validate(); err != nil {
		return nil, &ConfigError{err}
	}
	d := &driver{cfg: cfg, task: cfg.Task, log: cfg.Log.With("node", cfg.Gossip.Name), box: newMailbox()}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.stopWork, d.stopFetch = func() {}, func() {} // a node may hurry what was never begun
	var err error
	d.journal, err = openJournal(cfg.Dir)
	return d, err
}

// load finds the newest state that this node can believe.
func (d *driver) load() (*State, error) {
	store, err := checkpoint.Open(checkpoint.OS(), d.cfg.Checkpoints)
	if err != nil {
		return nil, err
	}
	d.store = store
	if err := store.Sweep(); err != nil {
		d.log.Warn("old temporary files stay", "error", err)
	}
	if err := d.refuseOthers(); err != nil {
		return nil, err
	}
	snap, skipped, err := store.Latest(d.task.Trajectory)
	for _, s := range skipped {
		text := fmt.Sprintf("checkpoint %s is passed over: %s", s.Path, s.Reason)
		d.log.Warn(text)
		d.record(Event{Time: time.Now(), Kind: "damaged", Text: text})
	}
	if errors.Is(err, checkpoint.ErrNone) {
		return d.task.Start(), nil
	}
	if err != nil {
		return nil, err
	}
	s, err := d.task.restore(snap)
	if err != nil {
		return nil, fmt.Errorf("checkpoint of transition %d: %w", snap.Transition, err)
	}
	d.record(Event{Time: time.Now(), Kind: "resume", Step: s.Step, Text: fmt.Sprintf("resumes from the checkpoint of step %d", s.Step)})
	return s, nil
}

// OtherTrajectoryError tells that a directory holds the states of another
// trajectory, and in what its job differs.
type OtherTrajectoryError struct {
	Dir         string
	Differences []string
}

func (e *OtherTrajectoryError) Error() string {
	return fmt.Sprintf("%s holds checkpoints of another trajectory:\n  %s\nTrain in another directory, or start a new trajectory from that state with --fork",
		e.Dir, strings.Join(e.Differences, "\n  "))
}

// refuseOthers keeps a directory to one trajectory.
func (d *driver) refuseOthers() error {
	all, err := d.store.Trajectories()
	if err != nil || len(all) == 0 {
		return err
	}
	for _, t := range all {
		if t.ID == d.task.Trajectory {
			return nil
		}
	}
	here := d.task.Identity()
	diff := here.Differences("here", "there", Identity{Numerics: Numerics, Job: all[0].Job, Data: here.Data, Start: here.Start})
	if len(diff) == 1 && strings.HasPrefix(diff[0], "starting state") {
		diff = []string{"the job is the same, but data, program or starting state are not"}
	}
	return &OtherTrajectoryError{d.cfg.Checkpoints, diff}
}

// open starts everything that listens or runs.
func (d *driver) open(s *State) error {
	d.shown.since = time.Now()
	if err := d.listen(); err != nil {
		return err
	}
	d.engine = NewEngine(d.task, d.cfg.Threads)
	d.engine.Clock(func() time.Duration { return time.Since(d.shown.since) })
	d.pool = newPool(d.engine)
	j := d.task.Job
	d.writer = checkpoint.NewWriter(checkpoint.WriterConfig{Store: d.store, Keep: j.Checkpoint.Keep, Done: d.saved})
	g := d.cfg.Gossip
	d.self = view.Fact{
		ID: g.Name, Incarnation: g.Incarnation, Addr: d.advertised(), Zone: d.cfg.Zone, Trajectory: d.task.Trajectory, Transition: s.Transition,
	}
	vc := view.DefaultConfig(d.self)
	vc.MinNodes, vc.Expect = d.cfg.MinNodes, d.cfg.Expect
	if d.cfg.ExpectFor > 0 {
		vc.ExpectFor = d.cfg.ExpectFor
	}
	d.node = NewNode(d.task, s, vc, checkpoint.Policy{
		EverySteps: uint64(j.Checkpoint.EverySteps), Keep: j.Checkpoint.Keep, Replicas: j.Checkpoint.Replicas,
	}, time.Now())
	d.refresh(time.Now())
	if err := d.startGossip(); err != nil {
		d.shutdown()
		return err
	}
	d.journal.write(Record{T: "start", Time: time.Now(), Node: g.Name, Incarnation: g.Incarnation, Transition: s.Transition, Step: s.Step, Text: hex.EncodeToString(d.task.Trajectory[:])})
	d.line(Line{Ready: d.ready()})
	return nil
}

func (d *driver) listen() error {
	addr := d.cfg.GRPC
	if addr == "" {
		host, _, err := net.SplitHostPort(d.cfg.Gossip.Bind)
		if err != nil {
			host = "127.0.0.1"
		}
		addr = net.JoinHostPort(host, "0")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("the gRPC server cannot listen on %s: %w", addr, err)
	}
	d.client = rpc.NewClient(rpc.ClientConfig{})
	d.server = rpc.Serve(rpc.ServerConfig{
		Listener: l, Generation: func() uint64 { return d.pongNow().Generation }, Log: d.log,
		Handlers: rpc.Handlers{Deliver: d.onDeliver, Ping: d.onPing, Describe: d.onDescribe, Status: d.onStatus, Fetch: d.onFetch},
	})
	return nil
}

// advertised is the address that others reach the server under.
func (d *driver) advertised() string {
	host, port, err := net.SplitHostPort(d.server.Addr())
	if err != nil {
		return d.server.Addr()
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return d.server.Addr()
	}
	if ip, err := d.cfg.Gossip.AdvertiseIP(); err == nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, port)
}

func (d *driver) startGossip() error {
	g, err := cluster.Start(d.cfg.Gossip, d.self, func(e cluster.Event) {
		d.box.post(func() { d.onGossip(e) })
	})
	if err != nil {
		return err
	}
	d.gossip = g
	d.spawn(func() { d.awaitJoined() })
	return nil
}

// awaitJoined tells the node when gossip has found the others, and the user what
// was tried while it has not.
func (d *driver) awaitJoined() {
	for wait := 3 * time.Second; ; wait = min(2*wait, time.Minute) {
		ctx, cancel := context.WithTimeout(d.ctx, wait)
		err := d.gossip.Joined(ctx)
		cancel()
		switch {
		case d.ctx.Err() != nil:
			return
		case err == nil:
			d.box.post(func() { d.node.Ready(time.Now()) })
			return
		case errors.Is(err, cluster.ErrSecret):
			d.box.post(func() { d.node.Abort(err) })
			return
		}
		d.box.post(func() { d.tell(Event{Time: time.Now(), Kind: "unreachable", Text: err.Error()}) })
	}
}

func (d *driver) spawn(f func()) {
	d.calls.Add(1)
	go func() {
		defer d.calls.Done()
		f()
	}()
}

// loop owns the node until it exits.
func (d *driver) loop(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var todo []func()
	leave := ctx.Done()
	d.perform()
	for d.exit == nil {
		select {
		case <-d.box.filled:
			todo = d.box.take(todo)
			for _, f := range todo {
				f()
				d.perform()
			}
		case now := <-tick.C:
			d.tick(now)
		case <-leave:
			leave = nil
			d.node.Leave(time.Now())
		}
		d.perform()
		d.publish()
	}
}

func (d *driver) tick(now time.Time) {
	var p rpc.Progress
	if d.group != nil {
		p = d.group.Progress()
	}
	d.node.Tick(now, Links{p.WaitingSince, p.SendingSince, p.FramesIn})
	d.serveWaiting()
	d.refresh(now)
	if now.Sub(d.shown.announced) >= time.Second {
		d.shown.announced = now
		d.node.Measured(now, float32(d.ownSpeed()))
	}
	if err := d.journal.flush(); err != nil && !d.shown.journalFailed {
		d.shown.journalFailed = true
		d.log.Error("the journal cannot be written; training goes on", "error", err)
	}
}

// perform carries out what the node wants.
func (d *driver) perform() {
	for d.exit == nil {
		effects := d.node.Take()
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			d.do(e)
		}
		d.storePong()
	}
}

// storePong renews the answer to pings, which is given without asking the node.
func (d *driver) storePong() {
	p := d.node.Pong(time.Now())
	d.pong.Store(&p)
	d.groupNow.Store(d.group)
}

func (d *driver) do(e Effect) {
	switch e := e.(type) {
	case view.Send:
		d.send(e)
	case view.Ping:
		d.ping(e)
	case view.Announce:
		if d.gossip != nil {
			d.gossip.Update(e.Fact)
		}
	case view.Stranger:
		d.spawn(func() { d.compare(e) })
	case OpenGroup:
		d.openGroup(e)
	case CloseGroup:
		d.closeGroup(e)
	case Compute:
		d.compute(e)
	case CancelCompute:
		d.stopWork()
	case Reduce:
		if d.groupName == e.View {
			d.group.Start(e.Op)
		}
	case Fetch:
		d.fetch(e)
	case CancelFetch:
		d.stopFetch()
	case Save:
		d.save()
	case Committed:
		d.committed(e)
	case Tell:
		d.tell(e.Event)
	case Exit:
		d.exit = &e
	default:
		panic(fmt.Sprintf("train: an effect without a driver: %T", e))
	}
}

func (d *driver) save() {
	begun := time.Now()
	s := d.node.Snapshot()
	d.shown.stall += time.Since(begun)
	d.shown.copies++
	if back := d.writer.Submit(s); back != nil {
		d.box.post(func() { d.node.Saved(time.Now(), errors.New("the writer is closed")) })
	}
}

func (d *driver) send(e view.Send) {
	payload := e.Msg.Encode()
	d.spawn(func() {
		_, err := d.client.Deliver(d.ctx, e.Addr, rpc.Envelope{Trajectory: d.task.Trajectory, From: d.self.Node().String(), Payload: payload})
		if err != nil && d.ctx.Err() == nil {
			d.log.Debug("a message was not delivered", "to", e.To.String(), "error", err)
			d.box.post(func() { d.node.Undelivered(time.Now(), e.To) })
		}
	})
}

func (d *driver) ping(e view.Ping) {
	d.spawn(func() {
		ctx, cancel := context.WithTimeout(d.ctx, e.Timeout)
		defer cancel()
		b, err := d.client.Ping(ctx, e.Addr, e.To.Incarnation)
		if d.ctx.Err() != nil {
			return
		}
		var p view.Pong
		if err == nil {
			err = json.Unmarshal(b, &p)
		}
		d.box.post(func() {
			if err != nil {
				d.node.PingFailed(time.Now(), e.To, rpc.KindOf(err) != rpc.Timeout, pingReason(err, e.Timeout))
				return
			}
			d.node.Ponged(time.Now(), e.To, p)
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

// compare finds out in what a node on another trajectory differs. Whoever came
// later, or never trained, does not belong.
func (d *driver) compare(s view.Stranger) {
	b, err := d.client.Describe(d.ctx, s.Fact.Addr)
	var other Identity
	if err == nil {
		err = json.Unmarshal(b, &other)
	}
	if d.ctx.Err() != nil {
		return
	}
	diff := []string{"it does not say in what"}
	if err == nil {
		diff = d.task.Identity().Differences("this node", s.Fact.ID, other)
	}
	d.box.post(func() {
		e := &StrangerError{s.Fact.ID, s.Fact.Addr, diff}
		if s.Senior {
			d.node.Abort(e)
			return
		}
		d.tell(Event{Time: time.Now(), Kind: "stranger", Node: s.Fact.ID, Text: e.Error() + "; it is not let in"})
	})
}

// StrangerError tells that a node trains something else.
type StrangerError struct {
	Node, Addr  string
	Differences []string
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("%s (%s) walks another trajectory: %s", e.Node, e.Addr, strings.Join(e.Differences, "; "))
}

func (d *driver) openGroup(e OpenGroup) {
	v, name := e.View, e.View.Name()
	n := v.World()
	right := v.Members[(e.Rank+1)%n]
	d.groupName = name
	d.group = rpc.StartGroup(d.server, rpc.GroupConfig{
		Ring: allreduce.Config{Rank: e.Rank, World: n, Fence: name.Fence()},
		Self: d.self.Node().String(), Left: v.Members[(e.Rank+n-1)%n].Node().String(),
		Right: right.Node().String(), RightAddr: right.Addr, SetupTimeout: 3 * time.Second,
		Done: func(seq uint64, headers [][]byte, _ []float32) {
			d.box.post(func() {
				begun := time.Now()
				d.node.Reduced(begun, name, seq, headers)
				d.shown.update += time.Since(begun)
			})
		},
		Down: func(blame string, cause error) {
			c := d.cause(v, blame, cause)
			d.box.post(func() { d.groupDown(name, c) })
		},
	})
}

// cause translates the end of a group into the words of views.
func (d *driver) cause(v *view.View, blame string, err error) view.Cause {
	c := view.Cause{By: d.self.Node(), Reason: err.Error()}
	if ended := (*rpc.Ended)(nil); errors.As(err, &ended) {
		if ended.Note.Blame == "" && ended.Note.Reason == orderly {
			return view.Cause{}
		}
		c.By, c.Reason = memberNamed(v, ended.Note.By), ended.Note.Reason
	}
	c.Blame = memberNamed(v, blame)
	c.Reason = strings.TrimPrefix(c.Reason, "lost "+blame+": ")
	return c
}

func memberNamed(v *view.View, name string) view.Node {
	for _, m := range v.Members {
		if m.Node().String() == name {
			return m.Node()
		}
	}
	return view.Node{}
}

func (d *driver) groupDown(name view.Name, c view.Cause) {
	p := d.group.Progress()
	d.shown.counters.BytesIn += p.BytesIn
	d.shown.counters.BytesOut += p.BytesOut
	if d.groupName == name {
		d.group, d.groupName = nil, view.Name{}
	}
	if c != (view.Cause{}) {
		d.shown.counters.Lost++
		if g := d.node.gen; g != nil && g.attempt != nil {
			d.shown.counters.Interrupted++
		}
	}
	d.node.GroupDown(time.Now(), name, c)
}

func (d *driver) closeGroup(e CloseGroup) {
	if d.groupName != e.View || d.group == nil {
		return
	}
	if e.Cause == (view.Cause{}) {
		d.group.Close("", orderly)
		return
	}
	blame := ""
	if !e.Cause.Blame.IsZero() {
		blame = e.Cause.Blame.String()
	}
	d.group.Close(blame, e.Cause.Reason)
}

func (d *driver) compute(e Compute) {
	ctx, cancel := context.WithCancel(d.ctx)
	d.stopWork = cancel
	d.pool.compute(ctx, e.Attempt, e.Range, e.Params, func(c Contribution, err error) {
		cancel()
		d.box.post(func() { d.node.Computed(time.Now(), e.View, c, err) })
	})
}

func (d *driver) fetch(e Fetch) {
	ctx, cancel := context.WithCancel(d.ctx)
	d.stopFetch = cancel
	d.spawn(func() {
		defer cancel()
		blob, err := d.client.Fetch(ctx, e.Donor.Addr, rpc.FetchRequest{View: e.View.Fence(), Transition: e.Transition})
		d.box.post(func() { d.node.Fetched(time.Now(), e.View, blob, err) })
	})
}

func (d *driver) onGossip(e cluster.Event) {
	now := time.Now()
	switch e.Kind {
	case cluster.Up, cluster.Update:
		d.node.Up(now, e.Fact)
	case cluster.Left, cluster.Failed:
		d.node.Down(now, e.Fact, e.Kind == cluster.Left)
	}
}

func (d *driver) saved(r checkpoint.Result) {
	d.box.post(func() {
		now := time.Now()
		s := r.Snapshot
		if r.Err != nil {
			d.shown.counters.SaveErrors++
			d.log.Error("checkpoint failed; training goes on", "step", s.Step, "error", r.Err)
			d.tell(Event{Time: now, Kind: "checkpoint failed", Step: s.Step, Text: fmt.Sprintf("the checkpoint of step %d could not be written: %v; training goes on", s.Step, r.Err)})
		} else {
			d.shown.counters.Checkpoints++
			d.shown.checkpoint = r.Saved.Path
			d.record(Event{Time: now, Kind: "checkpoint", Step: s.Step, Text: r.Saved.Path, Millis: millis(r.Took)})
		}
		if r.PruneErr != nil {
			d.log.Warn("old checkpoints stay", "error", r.PruneErr)
		}
		d.node.Saved(now, r.Err)
	})
}

func millis(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

// --- the door ---

func (d *driver) onDeliver(_ context.Context, e rpc.Envelope) ([]byte, error) {
	if e.Trajectory != d.task.Trajectory {
		return nil, fmt.Errorf("trajectory %x is not walked here, but %x", e.Trajectory[:4], d.task.Trajectory[:4])
	}
	m, err := view.DecodeMsg(e.Payload)
	if err != nil {
		return nil, err
	}
	d.box.post(func() { d.node.Receive(time.Now(), m) })
	return nil, nil
}

func (d *driver) pongNow() view.Pong {
	if p := d.pong.Load(); p != nil {
		return *p
	}
	return view.Pong{Fact: d.self}
}

func (d *driver) onPing(_ context.Context, incarnation uint64) ([]byte, error) {
	if incarnation != 0 && incarnation != d.cfg.Gossip.Incarnation {
		return nil, errors.New("another process has this address now")
	}
	if d.gone.Load() {
		return nil, errors.New("the node goes")
	}
	p := d.pongNow()
	p.Beat = d.engine.Done()
	if g := d.groupNow.Load(); g != nil {
		p.Sent = g.Progress().FramesOut
		p.Beat += p.Sent
	}
	return json.Marshal(p)
}

func (d *driver) onDescribe(context.Context) ([]byte, error) { return json.Marshal(d.task.Identity()) }

func (d *driver) onStatus(context.Context) ([]byte, error) {
	s := d.status.Load()
	if s == nil {
		return nil, errors.New("starting")
	}
	return json.Marshal(s)
}

func (d *driver) onFetch(ctx context.Context, r rpc.FetchRequest) ([]byte, error) {
	f := &fetchRequest{r.View, r.Transition, time.Now().Add(2 * time.Second), make(chan fetchReply, 1)}
	d.box.post(func() { d.serve(f) })
	select {
	case reply := <-f.reply:
		return reply.blob, reply.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-d.ctx.Done():
		return nil, errors.New("the node goes")
	}
}

// serve answers a request for the state, or keeps it until the view that it
// names has started here too.
func (d *driver) serve(f *fetchRequest) {
	blob, err := d.node.Serve(f.fence, f.at)
	if errors.Is(err, ErrNotHere) && time.Now().Before(f.until) {
		d.waiting = append(d.waiting, f)
		return
	}
	f.reply <- fetchReply{blob, err}
}

func (d *driver) serveWaiting() {
	all := d.waiting
	d.waiting = nil
	for _, f := range all {
		d.serve(f)
	}
}

// --- the end ---

// close takes everything down and tells how the run ended.
func (d *driver) close() (Result, error) {
	d.gone.Store(true)
	e := *d.exit
	r := d.result(e)
	d.shutdown()
	d.journal.write(Record{T: "end", Time: time.Now(), Node: d.self.ID, Transition: r.Transition, Step: r.Step, Text: r.Reason + r.Error})
	d.line(Line{Result: &r})
	return r, e.Err
}

func (d *driver) result(e Exit) Result {
	s := d.node.State()
	m := checkpoint.Describe(d.task.snapshot(s))
	model, state := m.ModelDigest(), m.Digest()
	r := Result{
		Node: d.self.ID, Finished: e.Finished, Reason: e.Reason, Transition: s.Transition, Step: s.Step,
		ModelSHA256: hex.EncodeToString(model[:]), StateSHA256: hex.EncodeToString(state[:]),
		Checkpoint: d.shown.checkpoint, Scalars: d.task.Scalars(), History: s.History, Repeats: s.Repeats,
	}
	if e.Err != nil {
		r.Error = e.Err.Error()
	}
	return r
}

// shutdown ends all goroutines. Nobody waits for a time-out because of it:
// gossip says good-bye and the links close.
func (d *driver) shutdown() {
	if d.gossip != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		if err := d.gossip.Leave(ctx); err != nil {
			d.log.Debug("nobody may have heard the farewell", "error", err)
		}
		cancel()
	}
	d.cancel()
	if d.group != nil {
		d.group.Close("", "the node goes")
		d.group.Wait() // until the neighbours have its last words
	}
	d.server.Close()
	d.client.Close()
	d.calls.Wait()
	if d.gossip != nil {
		d.gossip.Close()
	}
	d.pool.close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.writer.Close(ctx); err != nil {
		d.log.Error("the last checkpoint may be missing", "error", err)
	}
	d.box.close()
}

// line tells whoever started the node.
func (d *driver) line(l Line) {
	if d.cfg.Line != nil {
		d.cfg.Line(l)
	}
}

func (d *driver) ready() *Ready {
	return &Ready{
		Node: d.self.ID, Incarnation: d.self.Incarnation, PID: os.Getpid(), GRPC: d.self.Addr, Gossip: d.gossip.Addr(),
		Trajectory: hex.EncodeToString(d.task.Trajectory[:]),
	}
}
