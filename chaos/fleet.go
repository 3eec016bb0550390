//go:build linux

package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// fleet is the nodes of a run. It belongs to the goroutine that plays the script, whose
// thread is the processes' parent: when it dies, they do.
type fleet struct {
	cfg    Config
	dir    string // a directory and a log for each node
	job    string // the job file
	label  string
	ground ground
	limits *limits
	nodes  []*node
	gone   chan *lives.Process // each process when it has ended
}

// node is one name through all its lives.
type node struct {
	i     int
	id    string
	now   *lives.Process // the newest; nil before the first
	past  []*lives.Process
	clock float64       // seconds that its clocks stand elsewhere
	under map[Kind]bool // faults that only one of its kind befalls at a time
	doom  *Played       // the fault that its process ends by; nil where it isn't to end
	// relieve lifts what ends the process, once it has; nil where there is nothing to lift.
	relieve func() error
}

func newFleet(cfg Config, dir, job string, g ground, l *limits, nodes int) *fleet {
	f := &fleet{cfg: cfg, dir: dir, job: job, label: filepath.Base(cfg.Dir) + "-" + filepath.Base(dir), ground: g, limits: l, gone: make(chan *lives.Process, 16)}
	for i := range nodes {
		f.nodes = append(f.nodes, &node{i: i, id: nodeName(i), under: map[Kind]bool{}})
	}
	return f
}

// start starts a node; with expect > 0 it waits for so many before the first step.
func (f *fleet) start(n *node, expect int) error {
	argv := slices.Concat(f.limits.through(n.i, n.clock), f.ground.through(n.i), []string{
		f.cfg.Program, "run", "--name", n.id, "--dir", filepath.Join(f.dir, n.id), "--label", f.label, "--events", "--supervised", "--threads", strconv.Itoa(f.threads()),
	}, f.ground.flags(n.i))
	if dir := f.limits.checkpoints(n.i); dir != "" {
		argv = append(argv, "--checkpoints", dir)
	}
	if expect > 0 {
		argv = append(argv, "--expect", strconv.Itoa(expect), "--expect-for", patience.String())
	}
	var join []string
	for i := range f.nodes {
		if i != n.i {
			join = append(join, f.ground.gossip(i))
		}
	}
	if len(join) > 0 {
		argv = append(argv, "--join", strings.Join(join, ","))
	}
	p, err := lives.Start(n.id, lives.Command{
		Argv: append(argv, f.job), Env: f.cfg.Env, Log: filepath.Join(f.dir, n.id+".log"),
		Attr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	n.now, n.doom = p, nil
	n.past = append(n.past, p)
	f.ground.started(n.i, p.PID())
	f.limits.started(n.i, p)
	go func() {
		<-p.Gone()
		f.gone <- p
	}()
	return nil
}

// threads is one for each of several nodes, and all there are for one.
func (f *fleet) threads() int {
	if len(f.nodes) == 1 {
		return runtime.NumCPU()
	}
	return 1
}

// runs tells whether a node has a process that is not about to end.
func (n *node) runs() bool { return n.now != nil && n.now.Living() && n.doom == nil }

// coordinator is whom most nodes that run take for it; nil if none is known.
func (f *fleet) coordinator() *node {
	votes := map[string]int{}
	for _, n := range f.nodes {
		if n.runs() {
			votes[n.now.Told().Progress.Coordinator]++
		}
	}
	var best *node
	for _, n := range f.nodes {
		if votes[n.id] > 0 && (best == nil || votes[n.id] > votes[best.id]) {
			best = n
		}
	}
	return best
}

// together tells whether all nodes train in one view.
func (f *fleet) together() bool {
	for _, n := range f.nodes {
		if !n.runs() || n.now.Told().Progress.World != len(f.nodes) {
			return false
		}
	}
	return true
}

// step is the furthest that anybody has told.
func (f *fleet) step() (most uint64) {
	for _, n := range f.nodes {
		if n.now != nil {
			most = max(most, n.now.Told().Progress.Step)
		}
	}
	return most
}

// living lists the processes that have not ended.
func (f *fleet) living() (all []*lives.Process) {
	for _, n := range f.nodes {
		if n.now != nil {
			select {
			case <-n.now.Gone():
			default:
				all = append(all, n.now)
			}
		}
	}
	return all
}

// end kills what still runs, frozen or not.
func (f *fleet) end() error {
	var errs []error
	for _, p := range f.living() {
		_, err := p.Kill()
		errs = append(errs, err)
		select {
		case <-p.Gone():
		case <-time.After(patience):
			errs = append(errs, fmt.Errorf("%s does not die", p.ID))
		}
	}
	return errors.Join(errs...)
}

// held looks at what the nodes' processes hold.
func (f *fleet) held() (all []Held, err error) {
	for _, n := range f.nodes {
		if !n.runs() {
			continue
		}
		h, err := heldBy(n.now.PID())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.id, err)
		}
		h.Node = n.id
		if h.Goroutines, err = f.goroutines(n); err != nil {
			return nil, fmt.Errorf("%s: %w", n.id, err)
		}
		all = append(all, h)
	}
	return all, nil
}

// goroutines asks a node how many it has.
func (f *fleet) goroutines(n *node) (int, error) {
	argv := append(f.ground.through(n.i), f.cfg.Program, "status", "--json", "--addr", f.ground.server(n.i))
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	var s train.Status
	err = json.Unmarshal(out, &s)
	return s.Goroutines, err
}
