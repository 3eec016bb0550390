package train

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
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
	Task      *Task
	FromPeers *FromPeers // instead of Task: it is made of what the others have

	// Gossip says who the node is and whom it looks for: Name, Bind, Advertise,
	// Join, Secret, Insecure, Label and the intervals. Incarnation is drawn if 0.
	Gossip        cluster.Config
	GRPC          string // address of the node's server; "" is the gossip host, port 0
	AdvertiseGRPC string // host:port under which others reach it, where that is another; "" is the same
	Zone          string // nodes of a zone are neighbours in the ring

	Dir         string // run directory of this node: its journal
	Checkpoints string // where it writes states, and looks for one to start from
	Threads     int    // microbatches computed at the same time; 0 is GOMAXPROCS
	MinNodes    int    // below it training waits; 0 is the job's
	Expect      int    // nodes to wait for before the very first step
	ExpectFor   time.Duration

	Flip *Flip // for tests; nil for none
	Even bool  // for measurements: slow nodes compute as much as the others; for all nodes or for none

	Log  *slog.Logger // nil: silence
	Line func(Line)   // told of everything, by one goroutine, which may take its time; nil for none

	fs checkpoint.FS // nil: the system's
}

// Run takes part in training until the run is finished, ctx ends (an orderly
// leave at the end of the step), or this node cannot go on, which is the error.
// The others do not depend on it.
//
// A node that the others have proved to be at fault starts anew here, as another
// process of it would, for as often as it is let in again; then Run ends with an
// *ExpelledError.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := checkArithmetic(); err != nil {
		return Result{}, err
	}
	join := cfg.Gossip.Join
	for returns := 0; ; returns++ {
		d, err := newDriver(cfg)
		if err != nil {
			return Result{}, err
		}
		d.returns = returns
		r, err := d.live(ctx)
		if !Returns(err, returns) || ctx.Err() != nil {
			return r, err
		}
		cfg.Gossip.Incarnation, cfg.Gossip.Join = 0, slices.Concat(join, d.others)
	}
}

// live is a life of the node, from its start to its end.
func (d *driver) live(ctx context.Context) (Result, error) {
	defer d.closeJournal()
	go d.tellLines()
	defer d.linesTold()
	if d.task == nil {
		if err := d.gather(ctx); err != nil {
			return d.forsake(err)
		}
	}
	state, err := d.load()
	if err == nil {
		err = d.open(state)
	}
	if err != nil {
		d.shutdown()
		return Result{}, err
	}
	d.loop(ctx)
	return d.close()
}

// driver is what a Host has goroutines, clocks, files and sockets from: its
// World, and the source of its events. One goroutine, loop, owns the Host;
// everything else posts to it.
type driver struct {
	cfg     Config
	task    *Task
	log     *slog.Logger
	self    view.Fact
	host    *Host
	box     *mailbox
	engine  *Engine
	pool    *pool
	server  *rpc.Server
	client  *rpc.Client
	gossip  *cluster.Gossip
	store   *checkpoint.Store
	writer  *checkpoint.Writer
	journal *journal
	disk    *atomic.Uint64 // moves when something happens to a file of a checkpoint
	lines   *mailbox       // what Line is told
	told    chan struct{}  // closed when it has been told all
	peers   *peers         // where data may come from
	share   sharing

	ctx    context.Context // of calls; ends when the node has exited
	cancel context.CancelFunc
	calls  sync.WaitGroup

	returns int         // lives of the node that were expelled before
	hit     atomic.Bool // the bit of cfg.Flip has flipped
	others  []string    // where the others' gossip was when the life ended

	group    *rpc.Group              // the running one, nil if none
	saveDone func(checkpoint.Result) // of the snapshot that the writer has
	shown    shown

	// For the server's goroutines.
	answer atomic.Pointer[pingAnswer]
	status atomic.Pointer[Status]
	gone   atomic.Bool // the node has exited
}

const tickEvery = 50 * time.Millisecond

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
	if a := cfg.AdvertiseGRPC; a != "" {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return nil, &ConfigError{fmt.Errorf("address of the gRPC server to tell others %q: want host:port", a)}
		}
	}
	if (cfg.Task == nil) == (cfg.FromPeers == nil) {
		return nil, &ConfigError{errors.New("want either a task or peers to make it of")}
	}
	cfg.Gossip.Wait = true
	cfg.Gossip.Log = cfg.Log
	if err := cfg.Gossip.Validate(); err != nil {
		return nil, &ConfigError{err}
	}
	d := &driver{cfg: cfg, task: cfg.Task, log: cfg.Log.With("node", cfg.Gossip.Name), box: newMailbox(), lines: newMailbox(), told: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	var err error
	d.shown.since = time.Now()
	d.journal, err = openJournal(cfg.Dir)
	return d, err
}

// load finds the newest state that this node can believe.
func (d *driver) load() (*State, error) {
	fsys := d.cfg.fs
	if fsys == nil {
		fsys = checkpoint.OS()
	}
	fsys, d.disk = checkpoint.Watch(fsys)
	store, err := checkpoint.Open(fsys, d.cfg.Checkpoints)
	if err != nil {
		return nil, err
	}
	d.store = store
	return LoadState(d.task, store, func(e Event) {
		e.Time = time.Now()
		if e.Kind == "damaged" {
			d.log.Warn(e.Text)
		}
		d.Record(e)
	})
}

// open starts everything that listens or runs.
func (d *driver) open(s *State) error {
	d.shown.epochs = map[int]bool{}
	if d.server == nil {
		if err := d.listen(); err != nil {
			return err
		}
	}
	d.engine = NewEngine(d.task, d.cfg.Threads)
	d.engine.Clock(func() time.Duration { return time.Since(d.shown.since) })
	if f := d.cfg.Flip; f.in(d.returns) && f.ofGradients() {
		d.engine.Spoil(f.spoil(&d.hit))
	}
	d.pool = newPool(d.engine)
	ahead := NewAhead(d.task)
	d.pool.lookAhead(ahead)
	d.writer = checkpoint.NewWriter(checkpoint.WriterConfig{Store: d.store, Keep: d.task.Job.Checkpoint.Keep, Done: d.written})
	g := d.cfg.Gossip
	d.self = view.Fact{
		ID: g.Name, Incarnation: g.Incarnation, Addr: d.advertised(), Zone: d.cfg.Zone, Trajectory: d.task.Trajectory, Transition: s.Transition,
	}
	d.host = NewHost(HostConfig{Task: d.task, Self: d.self, MinNodes: d.cfg.MinNodes, Expect: d.cfg.Expect, ExpectFor: d.cfg.ExpectFor, Each: d.pool.each, Sums: d.engine.Sums(), Ahead: ahead}, s, d)
	d.host.node.even = d.cfg.Even
	d.storeAnswer()
	d.refresh(time.Now())
	if d.gossip == nil {
		if err := d.startGossip(); err != nil {
			return err
		}
	} else {
		d.gossip.Update(d.self)
	}
	d.spawn(func() { d.awaitJoined() })
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
	d.peers = newPeers(d.client, d.log)
	d.server = rpc.Serve(rpc.ServerConfig{
		Listener: l, Generation: d.generation, Log: d.log, Handlers: d.handlers(),
	})
	return nil
}

// advertised is the address that others reach the server under.
func (d *driver) advertised() string {
	if d.cfg.AdvertiseGRPC != "" {
		return d.cfg.AdvertiseGRPC
	}
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
		if d.onPeer(e); e.Fact.Trajectory != ([32]byte{}) { // else it has no data yet, and can't train
			d.box.post(func() { d.onGossip(e) })
		}
	})
	if err != nil {
		return err
	}
	d.gossip = g
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
			d.box.post(d.host.Joined)
			return
		case errors.Is(err, cluster.ErrSecret):
			d.box.post(func() { d.host.Abort(err) })
			return
		}
		d.box.post(func() { d.Tell(Event{Time: time.Now(), Kind: "unreachable", Text: err.Error()}) })
	}
}

// onPeer keeps account of who may have data.
func (d *driver) onPeer(e cluster.Event) {
	switch e.Kind {
	case cluster.Up, cluster.Update:
		d.peers.up(e.Fact)
	case cluster.Left, cluster.Failed:
		d.peers.down(e.Fact)
	}
}

func (d *driver) onGossip(e cluster.Event) {
	switch e.Kind {
	case cluster.Up, cluster.Update:
		d.host.Up(e.Fact)
	case cluster.Left, cluster.Failed:
		d.host.Down(e.Fact, e.Kind == cluster.Left)
	}
}

// loop owns the host until it exits.
func (d *driver) loop(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var todo []func()
	leave := ctx.Done()
	d.host.Begin()
	for d.host.Exit() == nil {
		select {
		case <-d.box.filled:
			todo = d.box.take(todo)
			for _, f := range todo {
				f()
			}
		case now := <-tick.C:
			d.tick(now)
		case <-leave:
			leave = nil
			d.host.Leave()
		}
		d.storeAnswer()
		d.publish()
	}
}

func (d *driver) tick(now time.Time) {
	d.host.Tick()
	d.refresh(now)
	if now.Sub(d.shown.announced) >= time.Second {
		d.shown.announced = now
		d.host.Measured(float32(d.ownSpeed()))
	}
	d.flushJournal()
}

func (d *driver) flushJournal() {
	if err := d.journal.flush(); err != nil && !d.shown.journalFailed {
		d.shown.journalFailed = true
		d.log.Error("the journal cannot be written; training goes on", "error", err)
	}
}

func (d *driver) closeJournal() {
	if err := d.journal.close(); err != nil && !d.shown.journalFailed {
		d.log.Error("the journal may lack its last lines", "error", err)
	}
}

// --- the end ---

// close takes everything down and tells how the run ended.
func (d *driver) close() (Result, error) {
	d.gone.Store(true)
	e := *d.host.Exit()
	if err := (*ExpelledError)(nil); errors.As(e.Err, &err) {
		e.Err = d.expelled(err)
	}
	r := d.result(e)
	d.others = d.gossip.Others()
	d.shutdown()
	d.recordHistory(time.Now(), r.History)
	d.journal.write(Record{T: "end", Time: time.Now(), Node: d.self.ID, Transition: r.Transition, Step: r.Step, Text: r.Reason + r.Error})
	if !Returns(e.Err, d.returns) {
		d.line(Line{Result: &r})
	}
	return r, e.Err
}

// expelled tells of the end of a life that was proved to be at fault, and what
// comes after it.
func (d *driver) expelled(e *ExpelledError) error {
	last := *e
	last.Final = !Returns(e, d.returns)
	then := fmt.Sprintf("it starts anew, for the %d. of %d times", d.returns+1, view.MaxReturns)
	if last.Final {
		then = "it does not return"
	}
	d.Tell(Event{Time: time.Now(), Kind: "expelled", Step: d.host.Node().State().Step, Node: e.Node, Text: e.Node + " is expelled: " + e.Evidence + "; " + then})
	return &last
}

func (d *driver) result(e Exit) Result {
	s := d.host.Node().State()
	m := checkpoint.Describe(d.task.snapshot(s))
	model, state := m.ModelDigest(), m.Digest()
	r := Result{
		Node: d.self.ID, Finished: e.Finished, Reason: e.Reason, Transition: s.Transition, Step: s.Step,
		ModelSHA256: hex.EncodeToString(model[:]), StateSHA256: hex.EncodeToString(state[:]),
		Checkpoint: d.shown.checkpoint, Scalars: d.task.Scalars(), History: s.History, Repeats: s.Repeats,
		Phases: d.phases(),
	}
	if e.Err != nil {
		r.Error = e.Err.Error()
	}
	return r
}

// shutdown ends all goroutines. Nobody waits for a time-out because of it:
// gossip says good-bye and the links close. What hangs in the system, which
// can't be interrupted, is left behind: the process ends without it.
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
		d.group.Close(allreduce.Broken, "", errGone.Error())
		d.group.Wait() // until the neighbours have its last words
	}
	d.unless("an answer to another node", d.serverGone)
	if d.gossip != nil {
		d.gossip.Close()
	}
	if d.pool != nil {
		d.unless("a computation", d.pool.close)
	}
	if d.writer != nil {
		d.writerGone()
	}
	d.box.close()
}

// unless waits for the end of something, unless that hangs.
func (d *driver) unless(what string, wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	select {
	case <-done:
	case <-time.After(hangFor):
		d.log.Error(what+" does not end: it waits for a disk, or for data, and is left behind", "waited", hangFor)
	}
}

func (d *driver) serverGone() {
	if d.server != nil {
		d.server.Close()
		d.client.Close()
	}
	d.calls.Wait()
}

// writerGone waits for the writer as long as the disk takes something.
func (d *driver) writerGone() {
	for at := d.disk.Load() + 1; at != d.disk.Load(); {
		at = d.disk.Load()
		ctx, cancel := context.WithTimeout(context.Background(), hangFor)
		err := d.writer.Close(ctx)
		cancel()
		if err == nil {
			return
		}
		d.log.Error("the last checkpoint may be missing", "error", err)
	}
}

// line tells whoever started the node, who may not listen at the moment: the loop does not wait.
func (d *driver) line(l Line) {
	if d.cfg.Line != nil {
		d.lines.post(func() { d.cfg.Line(l) })
	}
}

// tellLines is the goroutine that tells lines, until the box is closed.
func (d *driver) tellLines() {
	defer close(d.told)
	var todo []func()
	for range d.lines.filled {
		todo = d.lines.take(todo)
		for _, f := range todo {
			if f == nil {
				return
			}
			f()
		}
	}
}

// linesTold returns when everything has been told.
func (d *driver) linesTold() {
	d.lines.post(nil)
	<-d.told
}

func (d *driver) ready() *Ready {
	return &Ready{
		Node: d.self.ID, Incarnation: d.self.Incarnation, PID: os.Getpid(), GRPC: d.self.Addr, Gossip: d.gossip.Addr(),
		Trajectory: hex.EncodeToString(d.task.Trajectory[:]),
	}
}
