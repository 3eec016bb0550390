// Package fleet trains one job on several nodes that are processes of this
// machine, and makes of all that they say one story on one display.
//
//	node processes ── lines ──┐                ┌─► Story (pure) ─► display
//	supervisor ────── events ─┼─► mail ─► loop ┼─► nodes.json
//	clock ────────────────────┘                └─► Watch, the caller's hook
//
// Nodes find each other by gossip on loopback, under a label of their own, so
// that two fleets on one machine never meet. They start at once: each is given
// the gossip addresses of all others, which were chosen before (see addresses).
//
// A fleet ends with its job. All nodes that finished must have come to the same
// bytes; that they have is checked, not assumed.
package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/ui"
	"github.com/dlnode/dlnode/train"
)

// Config is a fleet to start. All fields but Pin, Args, ArgsOf, Env and Watch are needed.
type Config struct {
	Program string   // this program; it is run as "Program run ..."
	Env     []string // of the nodes, as "key=value", on top of our own
	Job     string   // path of the job file
	JobName string
	Dir     Layout
	Nodes   int                      // how many to start
	Threads int                      // of each node
	Pin     bool                     // each node runs on CPUs of its own, if they are just enough
	Args    []string                 // further flags of each node
	ArgsOf  func(id string) []string // and of one; nil for none
	Policy  supervise.Policy
	Display *ui.Display
	// Watch sees the progress that is shown, and may make trouble. It is called
	// by the fleet's goroutine and must not block.
	Watch func(*Fleet, train.Progress)
}

// Outcome is how a fleet ended that did not fail.
type Outcome struct {
	Finished bool         // the job is done; else all nodes left in order
	Result   train.Result // that all finished nodes agree on; else of the node that came farthest
	Took     time.Duration
	Nodes    map[string]*train.Result // what each node's last process said at its end, if it could
}

// Fleet is a running fleet, as Config.Watch sees it.
type Fleet struct {
	cfg      Config
	label    string
	founders []string // the nodes that start together
	story    *Story
	roster   Roster
	done     time.Time // when the first node finished; zero before
	sup      *supervise.Supervisor

	mu    sync.Mutex // of addrs: the supervisor's goroutine and Add use it
	addrs *addresses

	mail  chan func(now time.Time)
	ended chan struct{} // all processes have
	gone  chan struct{} // the loop has
}

// Run starts a fleet and returns when all its nodes have ended: with the job done,
// or since ctx ended or the user pressed Ctrl-C, which lets all nodes leave in
// order. Then the same call goes on from there. The error is a *Failure
// if the job was not done, or the nodes came to different results.
func Run(ctx context.Context, cfg Config) (Outcome, error) {
	begun := time.Now()
	f, err := start(cfg)
	if err != nil {
		return Outcome{}, err
	}
	stop := f.sup.ForwardInterrupts()
	defer stop()
	defer context.AfterFunc(ctx, f.sup.Interrupt)()
	reports := f.wait()
	o, err := f.outcome(reports)
	o.Took = time.Since(begun)
	return o, err
}

// NodeID is the name of the i-th node, from 1.
func NodeID(i int) string { return fmt.Sprintf("node-%d", i) }

func start(cfg Config) (*Fleet, error) {
	f := &Fleet{
		cfg: cfg, label: rand.Text(), story: NewStory(), addrs: newAddresses(),
		roster: Roster{PID: os.Getpid(), Job: cfg.JobName, Started: time.Now()},
		mail:   make(chan func(time.Time), 256), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	for i := range cfg.Nodes {
		f.founders = append(f.founders, NodeID(i+1))
		if err := f.addrs.assign(f.founders[i]); err != nil {
			return nil, fmt.Errorf("no free port on loopback: %w", err)
		}
	}
	if err := os.MkdirAll(string(cfg.Dir), 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	var err error
	f.sup, err = supervise.Start(supervise.Config{
		Policy: cfg.Policy, Command: f.command, LogDir: cfg.Dir.Logs(), Line: f.line, Event: f.event,
	}, f.founders...)
	if err != nil {
		return nil, err
	}
	go f.loop()
	return f, nil
}

// --- for Config.Watch ---

// Kill ends a node with SIGKILL, as a crash would; why tells the user.
func (f *Fleet) Kill(id, why string) error {
	f.story.Say("%s", why)
	f.story.Killed(id)
	return f.sup.Kill(id)
}

// Add starts one more node, which joins the others; why tells the user.
func (f *Fleet) Add(id, why string) error {
	f.mu.Lock()
	err := f.addrs.assign(id)
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("no free port on loopback: %w", err)
	}
	f.story.Say("%s", why)
	return f.sup.Add(id)
}

// Say shows a line of the caller's.
func (f *Fleet) Say(text string) { f.story.Say("%s", text) }

// --- callbacks of the supervisor ---

// command is what runs as a node.
func (f *Fleet) command(id string, attempt int) supervise.Command {
	f.mu.Lock()
	defer f.mu.Unlock()
	expect := 1 // who comes later trains with whom it finds
	if attempt == 1 && slices.Contains(f.founders, id) {
		expect = len(f.founders)
	}
	bind, join := f.addrs.start(id)
	c := supervise.Command{Argv: f.cfg.argv(id, f.label, expect, bind, join), Env: append(supervise.Share(f.cfg.Nodes, f.cfg.Threads), f.cfg.Env...)}
	c.CPUs = f.cfg.cpus(slices.Index(f.founders, id))
	return c
}

// Pinned tells whether nodes run on CPUs of their own.
func (c Config) Pinned() bool { return c.cpus(0) != nil }

func (c Config) cpus(founder int) []int {
	if !c.Pin {
		return nil
	}
	return supervise.CPUs(founder, c.Nodes, c.Threads)
}

// argv is a node's command line.
func (c Config) argv(id, label string, expect int, bind string, join []string) []string {
	argv := []string{
		c.Program, "run", "--name", id, "--label", label, "--bind", bind,
		"--dir", c.Dir.Node(id), "--checkpoints", c.Dir.Checkpoints(),
		"--threads", strconv.Itoa(c.Threads), "--expect", strconv.Itoa(expect),
		"--events", "--supervised",
	}
	if len(join) > 0 {
		argv = append(argv, "--join", strings.Join(join, ","))
	}
	argv = append(argv, c.Args...)
	if c.ArgsOf != nil {
		argv = append(argv, c.ArgsOf(id)...)
	}
	return append(argv, "--", c.Job)
}

// line takes a line of a node's standard output, on that node's goroutine.
func (f *Fleet) line(id string, line []byte) {
	line = append([]byte(nil), line...)
	f.post(func(now time.Time) {
		if l := f.story.Line(now, id, line); l.Ready != nil {
			f.roster.put(*l.Ready)
			f.saveRoster()
		}
	})
}

// event takes what happened to a process, on the supervisor's goroutine.
func (f *Fleet) event(e supervise.Event) {
	f.post(func(now time.Time) {
		f.story.Process(now, e)
		if e.Kind == supervise.Exited {
			f.roster.drop(e.ID)
			f.saveRoster()
		}
		if e.Outcome == supervise.Finished && f.done.IsZero() {
			f.done = now
		}
	})
}

// post hands work to the loop; what comes after its end is of no use to anyone.
func (f *Fleet) post(work func(now time.Time)) {
	select {
	case f.mail <- work:
	case <-f.gone:
	}
}

// --- the loop ---

// tickEvery is how often the story hears that time passes.
const tickEvery = 100 * time.Millisecond

// loop owns story, roster and display until all processes have ended and all
// they said is shown.
func (f *Fleet) loop() {
	defer close(f.gone)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case work := <-f.mail:
			work(time.Now())
		case now := <-ticker.C:
			f.story.Tick(now)
			f.retire(now)
		case <-f.ended:
			f.drain()
			return
		}
		f.show()
	}
}

// lastCall is how long a node may go on once another has finished the job. All
// members of a view finish together; one that came too late for it would do the
// rest alone.
const lastCall = 3 * time.Second

// retire lets the nodes leave that came too late.
func (f *Fleet) retire(now time.Time) {
	if f.done.IsZero() || now.Sub(f.done) < lastCall {
		return
	}
	f.done = now // ask again, should one be started meanwhile
	for _, id := range f.story.Retire() {
		if err := f.sup.Leave(id); err != nil && !errors.Is(err, supervise.ErrOver) {
			f.story.Say("%v", err)
		}
	}
}

// drain does what is left when nothing more comes.
func (f *Fleet) drain() {
	for {
		select {
		case work := <-f.mail:
			work(time.Now())
			f.show()
		default:
			f.story.Tick(time.Now().Add(patience))
			f.show()
			return
		}
	}
}

// show performs what the story tells, and what Watch adds to it.
func (f *Fleet) show() {
	for all := f.story.Take(); len(all) > 0; all = f.story.Take() {
		for _, t := range all {
			if t.Progress == nil {
				f.cfg.Display.Event(t.Text)
				continue
			}
			f.cfg.Display.Progress(display(t.Progress))
			if f.cfg.Watch != nil {
				f.cfg.Watch(f, *t.Progress)
			}
		}
	}
}

// display translates progress for the eye.
func display(p *train.Progress) ui.Progress {
	values := make([]ui.Value, len(p.Values))
	for i, v := range p.Values {
		values[i] = ui.Value{Name: v.Name, Value: float64(v.Value)}
	}
	return ui.Progress{
		Epoch: p.Epoch, Epochs: p.Epochs, Step: p.Step, Steps: p.Steps, Values: values,
		Samples: p.Samples, World: p.World, Note: p.Waiting,
	}
}

// saveRoster lets status find the nodes. A disk that cannot take it harms nobody
// else, so that is told and no more.
func (f *Fleet) saveRoster() {
	if err := f.roster.write(f.cfg.Dir); err != nil {
		f.story.Say("%s: %v", rosterName, err)
	}
}

// wait returns when all processes have ended and all is shown.
func (f *Fleet) wait() []supervise.Report {
	r := f.sup.Wait()
	close(f.ended)
	<-f.gone
	if err := os.Remove(f.cfg.Dir.roster()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.cfg.Display.Event(err.Error())
	}
	return r.Nodes
}

// outcome judges how it ended.
func (f *Fleet) outcome(reports []supervise.Report) (Outcome, error) {
	results := map[string]*train.Result{}
	var farthest train.Result
	for _, n := range reports {
		if r := f.story.Result(n.ID); r != nil {
			results[n.ID] = r
			if r.Transition >= farthest.Transition {
				farthest = *r
			}
		}
	}
	common, err := agree(results)
	if err != nil {
		return Outcome{}, err
	}
	if common != nil {
		return Outcome{Finished: true, Result: *common, Nodes: results}, nil
	}
	return Outcome{Result: farthest, Nodes: results}, failure(reports, f.story.Result)
}
