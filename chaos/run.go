//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// Config is a run.
type Config struct {
	Options
	Program string   // dlnode
	Env     []string // of its processes, such as where data are
	Dir     string   // an empty directory: all that the run writes
	Ground  string   // "netns", "loopback", or "": the first of them that can be made
	Job     Job      // its Epochs are chosen so that it outlives the script, if 0
	Log     func(format string, args ...any)
}

// patience bounds every wait for what comes soon on a machine that is not overloaded.
const patience = 2 * time.Minute

// Run plays a script to a job. What was wrong with the run is in the report; the error is
// that it could not be played. It keeps its thread to itself, as the processes' parent.
func Run(ctx context.Context, cfg Config) (report *Report, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, err := makeGround(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	l := newLimits(cfg.Dir, cfg.Nodes)
	defer func() { err = errors.Join(err, l.close()) }()
	if err := cfg.choose(g, l); err != nil {
		return nil, err
	}
	if cfg.Job.Epochs == 0 {
		if err := cfg.measureJob(ctx, g); err != nil {
			return nil, err
		}
	}
	p := &play{cfg: cfg, ctx: ctx, report: &Report{Options: cfg.Options, Ground: g.name(), Job: cfg.Job}}
	if p.fleet, err = cfg.fleet("nodes", g, l, cfg.Nodes); err != nil {
		return nil, err
	}
	script := Draw(cfg.Options)
	if err := os.WriteFile(filepath.Join(cfg.Dir, "script.txt"), []byte(script.String()), 0o644); err != nil {
		return nil, err
	}
	err = errors.Join(p.run(script), p.fleet.end())
	if err != nil {
		return nil, err
	}
	if p.report.Want, err = cfg.oracle(ctx); err != nil {
		return nil, err
	}
	return p.report, p.judge()
}

// makeGround makes the nodes' network.
func makeGround(cfg Config) (ground, error) {
	if cfg.Ground == "" || cfg.Ground == "netns" {
		g, err := newNetns(cfg.Nodes, cfg.Seed)
		if err == nil {
			for _, e := range g.made {
				cfg.Log("not played: %s: %v", e.kind, e.err)
			}
			return g, nil
		}
		if cfg.Ground != "" {
			return nil, err
		}
		cfg.Log("no network namespaces: %v", err)
	}
	return newLoopback(cfg.Nodes, cfg.Seed)
}

// choose settles which kinds are drawn: those that were asked for and can be done.
func (cfg *Config) choose(g ground, l *limits) error {
	can := slices.Concat([]Kind{Kill, Freeze, Pause}, g.kinds(), l.kinds())
	for _, why := range l.why {
		cfg.Log("%s", why)
	}
	asked := cfg.Kinds
	if len(asked) == 0 {
		asked = Kinds()
	}
	cfg.Kinds = nil
	for _, k := range asked {
		if slices.Contains(can, k) {
			cfg.Kinds = append(cfg.Kinds, k)
		}
	}
	if len(cfg.Kinds) == 0 {
		return fmt.Errorf("none of %v can be played here, but %v", asked, can)
	}
	return nil
}

// fleet makes a fleet in a directory of its own.
func (cfg Config) fleet(name string, g ground, l *limits, nodes int) (*fleet, error) {
	dir := filepath.Join(cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	job := filepath.Join(dir, "job.yaml")
	if err := os.WriteFile(job, []byte(cfg.Job.yaml()), 0o644); err != nil {
		return nil, err
	}
	return newFleet(cfg, dir, job, g, l, nodes), nil
}

// spare is the length of the job, in parts of what the nodes would do while the script is
// played if nothing went wrong. They come to some 0.6 of that.
const spare = 0.9

// measureJob chooses the number of epochs by what the nodes do in some seconds.
func (cfg *Config) measureJob(ctx context.Context, g ground) error {
	const lasts = 4 * time.Second
	trial := *cfg
	trial.Job.Epochs = 1000
	f, err := trial.fleet("trial", g, noLimits(cfg.Nodes), cfg.Nodes)
	if err != nil {
		return err
	}
	p := &play{cfg: trial, ctx: ctx, fleet: f, report: &Report{}}
	err = p.launch()
	first, began := f.step(), time.Now()
	if err == nil {
		err = p.until(lasts, "", func() bool { return false })
	}
	rate := float64(f.step()-first) / time.Since(began).Seconds()
	if err := errors.Join(err, f.end()); err != nil {
		return err
	}
	script := cfg.Every * time.Duration(cfg.Faults)
	cfg.Job.Epochs = 2 + int(spare*rate*script.Seconds()/float64(cfg.Job.Steps()))
	cfg.Log("%.0f steps a second where nothing fails; so the job has %d epochs of %d steps", rate, cfg.Job.Epochs, cfg.Job.Steps())
	return nil
}

// oracle has one process train the job, alone.
func (cfg Config) oracle(ctx context.Context) (v Verdict, err error) {
	cfg.Log("one process computes the job alone, to compare with")
	f, err := cfg.fleet("alone", nowhere{}, noLimits(1), 1)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, f.end()) }()
	p := &play{cfg: cfg, ctx: ctx, fleet: f, report: &Report{}}
	if err := f.start(f.nodes[0], 0); err != nil {
		return v, err
	}
	if err := p.finish(); err != nil {
		return v, err
	}
	if len(p.report.Verdicts) != 1 || len(p.report.Troubles) > 0 {
		return v, fmt.Errorf("the job, computed alone, came to nothing: %v", p.report.Troubles)
	}
	return p.report.Verdicts[0].Verdict, nil
}

// play is a script being played.
type play struct {
	cfg    Config
	ctx    context.Context
	fleet  *fleet
	todo   []deed // by time
	over   bool   // somebody has finished the job
	report *Report
}

// deed is something to be done at a moment.
type deed struct {
	at time.Time
	do func() error
}

func (p *play) trouble(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.cfg.Log("TROUBLE: %s", text)
	p.report.Troubles = append(p.report.Troubles, text)
}

func (p *play) at(when time.Time, do func() error) {
	i, _ := slices.BinarySearchFunc(p.todo, when, func(d deed, t time.Time) int { return d.at.Compare(t) })
	p.todo = slices.Insert(p.todo, i, deed{when, do})
}

// run plays the script from the start of the nodes to the end of the job.
func (p *play) run(script Script) error {
	if err := p.launch(); err != nil {
		return err
	}
	var err error
	if err = p.until(2*time.Second, "", func() bool { return false }); err != nil {
		return err
	}
	if p.report.Before, err = p.fleet.held(); err != nil {
		return err
	}
	began := time.Now()
	p.report.Began = began
	for _, fault := range script {
		p.at(began.Add(fault.At), func() error { return p.strike(fault) })
	}
	if err := p.until(0, "the script's end", func() bool { return len(p.todo) == 0 || p.over }); err != nil {
		return err
	}
	p.report.Took = time.Since(began)
	if p.over {
		p.trouble("the job ended before the script did: %d of %d faults were played; more EPOCHS are needed than %d", len(p.report.Played), len(script), p.cfg.Job.Epochs)
		p.todo = nil
		return p.finish()
	}
	if err := p.settle(); err != nil {
		return err
	}
	return p.finish()
}

// launch starts all nodes and waits until they train together.
func (p *play) launch() error {
	for _, n := range p.fleet.nodes {
		if err := p.fleet.start(n, len(p.fleet.nodes)); err != nil {
			return err
		}
	}
	return p.until(patience, "all nodes in one view", p.fleet.together)
}

// settle waits after the last fault until all are in one view, and looks at what they
// hold.
func (p *play) settle() error {
	healed := time.Now()
	err := p.until(patience, "all nodes in one view after the last fault", func() bool { return p.over || p.fleet.together() })
	if err != nil {
		return err
	}
	p.report.Settled = time.Since(healed)
	p.cfg.Log("the script is played; all nodes were in one view %.1f s later, at step %d of %d", p.report.Settled.Seconds(), p.fleet.step(), p.cfg.Job.Epochs*p.cfg.Job.Steps())
	if err := p.until(2*time.Second, "", func() bool { return p.over }); err != nil || p.over {
		return err
	}
	p.report.After, err = p.fleet.held()
	return err
}

// stall is how long nobody may complete a step.
const stall = 90 * time.Second

// finish waits until all processes have ended with the job.
func (p *play) finish() error {
	step, since := p.fleet.step(), time.Now()
	for len(p.fleet.living()) > 0 {
		if err := p.until(time.Second, "", func() bool { return len(p.fleet.living()) == 0 }); err != nil {
			return err
		}
		if now := p.fleet.step(); now > step {
			step, since = now, time.Now()
		}
		if time.Since(since) > stall {
			return fmt.Errorf("nobody has completed a step for %v, at step %d", stall, step)
		}
	}
	return p.until(0, "the end of all processes", func() bool { return len(p.fleet.gone) == 0 })
}

// look is how often a condition on what processes tell is looked at; they tell five
// times a second.
const look = 100 * time.Millisecond

// until does what is due and takes note of processes that end, until done or for some
// time. To be awaited in vain is an error where what says for what; timeout 0 is none.
func (p *play) until(timeout time.Duration, what string, done func() bool) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	deadline := time.Now().Add(timeout)
	for !done() {
		if timeout > 0 && time.Now().After(deadline) {
			if what == "" {
				return nil
			}
			return fmt.Errorf("no sign of %s for %v", what, timeout)
		}
		var due <-chan time.Time
		if len(p.todo) > 0 {
			due = time.After(time.Until(p.todo[0].at))
		}
		select {
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		case gone := <-p.fleet.gone:
			if err := p.ended(gone); err != nil {
				return err
			}
		case <-due:
			next := p.todo[0]
			p.todo = p.todo[1:]
			if err := next.do(); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
	return nil
}

// process tells whether a kind befalls a process, of which there is one.
func (k Kind) process() bool { return slices.Contains([]Kind{Kill, OutOfMem, Clock, Freeze, Pause}, k) }

// class is what excludes another fault of the same class at the same node, at the same
// time.
func (p *play) class(k Kind) Kind {
	switch {
	case k.process() || k == Starve && p.fleet.limits.cpu == nil: // starved by signals
		return Kill
	case k == LinkDown || k == Partition || k == OneWay || k == Delay || k == Loss:
		return "" // as many as there are
	}
	return k
}

// victim returns whom a fault befalls: the one it names, or the next that is fit for it;
// nil if there is none now. Half of the processes are left alone.
func (p *play) victim(f Fault) *node {
	nodes := p.fleet.nodes
	at := f.Node
	if c := p.fleet.coordinator(); f.Coordinator && c != nil {
		at = c.i
	}
	class, taken := p.class(f.Kind), 0
	for _, n := range nodes {
		if n.under[Kill] {
			taken++
		}
	}
	if class == Kill && taken >= len(nodes)/2 {
		return nil
	}
	for k := range nodes {
		n := nodes[(at+k)%len(nodes)]
		if n.runs() && n.now.Told().Ready != nil && !n.under[class] {
			return n
		}
	}
	return nil
}

// strike lets a fault happen, now or as soon as somebody is fit for it.
func (p *play) strike(f Fault) error {
	n := p.victim(f)
	if n == nil {
		p.at(time.Now().Add(look), func() error { return p.strike(f) })
		return nil
	}
	c := p.fleet.coordinator()
	x := &Played{Fault: f, Victims: []string{n.id}, Start: time.Now(), WasCoordinator: n == c}
	switch {
	case f.Kind == Partition:
		x.Victims = nil
		for _, i := range f.side(n.i, len(p.fleet.nodes)) {
			x.Victims = append(x.Victims, nodeName(i))
		}
	case f.Kind == OneWay && f.Direction == Pair:
		x.Victims = append(x.Victims, nodeName(f.other(n.i, len(p.fleet.nodes))))
	}
	p.report.Played = append(p.report.Played, x)
	heal, err := p.befall(x, n)
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	class := p.class(f.Kind)
	if class != "" {
		n.under[class] = true
	}
	p.cfg.Log("%8.2f s  %s: %s", x.Start.Sub(p.report.Began).Seconds(), f, strings.Join(x.Victims, ", "))
	if f.Kind == Kill || f.Kind == Clock || f.Kind == OutOfMem {
		return nil // goes on in ended
	}
	p.at(x.Start.Add(f.Lasts), func() error {
		x.End = time.Now()
		delete(n.under, class)
		return heal()
	})
	return nil
}

// befall does what a fault does.
func (p *play) befall(x *Played, n *node) (heal func() error, err error) {
	switch x.Kind {
	case Kill, Clock:
		n.doom = x
		x.Start, err = n.now.Kill()
		return nil, err
	case Freeze, Pause:
		now := n.now
		return func() error { return now.Signal(syscall.SIGCONT) }, now.Signal(syscall.SIGSTOP)
	case OutOfMem:
		n.doom = x
		if n.relieve, err = p.fleet.limits.strike(x.Fault, n.i); err != nil {
			return nil, err
		}
		p.at(x.Start.Add(oomPatience), func() error {
			if n.doom != x || !n.now.Living() {
				return nil
			}
			x.Survived = true
			_, err := n.now.Kill()
			return err
		})
		return nil, nil
	case FullDisk, Starve:
		return p.fleet.limits.strike(x.Fault, n.i)
	}
	return p.fleet.ground.strike(x.Fault, n.i)
}

// oomPatience is how long the kernel has to kill a process that has no memory left.
const oomPatience = 5 * time.Second

// ended takes note of a process' end, and has it started again where a fault was the
// cause, or where there was none.
func (p *play) ended(gone *lives.Process) error {
	n := p.fleet.nodes[slices.IndexFunc(p.fleet.nodes, func(n *node) bool { return n.id == gone.ID })]
	if gone != n.now {
		panic("chaos: a process ended after the one that was started in its place")
	}
	again := 500 * time.Millisecond
	x := n.doom
	switch result := gone.Told().Result; {
	case x != nil && gone.Signaled():
		x.Noticed = time.Now()
		again = x.Lasts
	case gone.Err() == nil && result != nil && result.Finished:
		p.over = true
		p.report.Verdicts = append(p.report.Verdicts, NodeVerdict{n.id, Verdict{result.ModelSHA256, result.StateSHA256, result.Step, result.Transition}})
		return nil
	case gone.Err() == nil && result != nil && strings.HasPrefix(result.Reason, "the run is finished"):
		p.over = true
		return nil
	default:
		p.trouble("%s ended, and should not have: %v%s", n.id, gone.Err(), reason(result))
	}
	if n.relieve != nil {
		if err := n.relieve(); err != nil {
			return err
		}
		n.relieve = nil
	}
	p.at(time.Now().Add(again), func() error {
		if x != nil {
			x.End = time.Now()
			if x.Kind == Clock {
				n.clock = x.Amount
			}
		}
		delete(n.under, Kill)
		return p.fleet.start(n, 0)
	})
	return nil
}

func reason(r *train.Result) string {
	if r == nil {
		return ""
	}
	b, err := json.Marshal(struct{ Reason, Error string }{r.Reason, r.Error})
	if err != nil {
		return " " + err.Error()
	}
	return " " + string(b)
}
