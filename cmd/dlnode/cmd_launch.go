package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/fleet"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/ui"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// launchFlags are the flags of dlnode launch.
type launchFlags struct {
	nodes, maxRestarts, threads, minNodes int
	dir, fork, logLevel                   string
	leaveGrace                            time.Duration
	pin                                   bool
	data                                  dataFlags
}

// runsDir is where run directories go that nobody named, and where status looks
// for the newest.
const runsDir = "runs"

func (m *Main) newLaunchCommand() *cobra.Command {
	var f launchFlags
	c := &cobra.Command{
		Use:   "launch job.yaml",
		Short: "Train with several processes of this machine",
		Long: "launch starts nodes as processes of this machine, which find each other and train\n" +
			"together. One that dies is started again and joins the others. Ctrl-C lets all complete\n" +
			"the step in hand, save it and leave; the same launch with --dir goes on from there, with\n" +
			"any number of nodes. Logs, checkpoints and journals are in the run directory.",
		Args: takes("job.yaml"),
		RunE: func(c *cobra.Command, args []string) error { return m.launch(c.Context(), args[0], f) },
	}
	fl := c.Flags()
	fl.IntVarP(&f.nodes, "nodes", "n", 4, "how many nodes to start")
	fl.StringVar(&f.dir, "dir", "", "run `directory`; one of an earlier launch goes on (default runs/JOB-TIME)")
	fl.IntVar(&f.maxRestarts, "max-restarts", 3, "how often a node that died is started again")
	fl.IntVar(&f.threads, "threads", 0, "microbatches that a node computes at the same time (default its share of the CPUs)")
	fl.BoolVar(&f.pin, "pin", true, pinUsage)
	fl.IntVar(&f.minNodes, "min-nodes", 0, "nodes below which training waits (default the job's min_nodes)")
	fl.StringVar(&f.fork, "fork", "", "start a new trajectory from the checkpoint in this `directory`")
	f.data.add(c, "those of the first node: the others get them from it")
	fl.StringVar(&f.logLevel, "log-level", "info", "of the nodes' logs: debug, info, warn or error")
	fl.DurationVar(&f.leaveGrace, "leave-grace", 30*time.Second, "how long a node may take to leave before it is killed")
	return c
}

const pinUsage = "where all threads of all nodes are just as many as CPUs, keep each node on its own (Linux)"

func (m *Main) launch(ctx context.Context, path string, f launchFlags) error {
	j, err := loadJob(path)
	if err != nil {
		return err
	}
	if err := f.check(j); err != nil {
		return err
	}
	if f.dir == "" {
		f.dir = newRunDir(j.Name, time.Now())
	}
	if err := m.refuseBusy(ctx, f.dir); err != nil {
		return err
	}
	if err := m.fetch(ctx, j, f); err != nil {
		return err
	}
	d := m.display()
	o, err := m.trainHere(ctx, j, path, f, d)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	if o.Finished {
		m.leaveCurves(f.dir)
	}
	return m.tellOutcome(o, f, path)
}

// check refuses what could never train.
func (f launchFlags) check(j *job.Job) error {
	need := j.MinNodes
	if f.minNodes > 0 {
		need = f.minNodes
	}
	switch {
	case f.nodes < 1:
		return usage("--nodes: %d is not allowed (want at least 1)", f.nodes)
	case f.maxRestarts < 0:
		return usage("--max-restarts: %d is not allowed (want 0 for never, or more)", f.maxRestarts)
	case f.threads < 0:
		return usage("--threads: %d is not allowed (want at least 1, or 0 for a share of the CPUs)", f.threads)
	case need > f.nodes:
		return usage("--nodes: %d nodes would wait for ever, as training waits for %d (min_nodes)", f.nodes, need)
	}
	return nil
}

// newRunDir is a run directory that does not exist yet.
func newRunDir(name string, now time.Time) string {
	base := filepath.Join(runsDir, name+now.Format("-20060102-150405"))
	dir := base
	for i := 2; ; i++ {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return dir
		}
		dir = base + "-" + strconv.Itoa(i)
	}
}

// refuseBusy keeps two fleets from sharing a run directory.
func (m *Main) refuseBusy(ctx context.Context, dir string) error {
	r, err := fleet.ReadRoster(fleet.Layout(dir))
	if err != nil {
		return nil // nobody runs, or what is left of it tells nothing
	}
	for _, n := range r.Nodes {
		if s, err := ask(ctx, n.GRPC); err == nil && s.Incarnation == n.Incarnation {
			return usage("--dir: %s is in use by process %d (%s answers at %s)", dir, r.PID, n.Node, n.GRPC)
		}
	}
	return nil
}

// trainHere runs a fleet until it ends.
func (m *Main) trainHere(ctx context.Context, j *job.Job, path string, f launchFlags, d *ui.Display) (fleet.Outcome, error) {
	cfg, err := m.fleetConfig(j, path, f, d)
	if err != nil {
		return fleet.Outcome{}, err
	}
	greet(d, j, f)
	return runFleet(ctx, cfg)
}

// greet says what begins, and what about it may surprise.
func greet(d *ui.Display, j *job.Job, f launchFlags) {
	d.Event(fmt.Sprintf("%s on %s of this machine, in %s", j.Name, nodes(f.nodes), f.dir))
	if v := j.Batch.Microbatches(); v < f.nodes {
		d.Event(fmt.Sprintf("a step has %d microbatches, so %d of %d nodes have nothing to compute", v, f.nodes-v, f.nodes))
	}
	if kernel.Lacks() != "" {
		d.Event("kernels: " + kernels())
	}
}

// runFleet is fleet.Run with exit codes.
func runFleet(ctx context.Context, cfg fleet.Config) (fleet.Outcome, error) {
	o, err := fleet.Run(ctx, cfg)
	if failed := (*fleet.Failure)(nil); errors.As(err, &failed) {
		return o, exit(failed.Status, fmt.Errorf("%w\nThe logs are in %s", err, cfg.Dir.Logs()))
	}
	return o, err
}

// fleetConfig is the fleet that the flags of launch describe.
func (m *Main) fleetConfig(j *job.Job, path string, f launchFlags, d *ui.Display) (fleet.Config, error) {
	program, err := os.Executable()
	if err != nil {
		return fleet.Config{}, fmt.Errorf("finding this program, to start it as a node: %w", err)
	}
	if f.threads == 0 {
		f.threads = max(1, runtime.NumCPU()/f.nodes)
	}
	args := []string{"--log-level", f.logLevel}
	if f.minNodes > 0 {
		args = append(args, "--min-nodes", strconv.Itoa(f.minNodes))
	}
	if f.fork != "" {
		args = append(args, "--fork", f.fork)
	}
	return fleet.Config{
		Program: program, Env: m.Env, Job: path, JobName: j.Name, Dir: fleet.Layout(f.dir),
		Nodes: f.nodes, Threads: f.threads, Pin: f.pin && m.getenv("GOMAXPROCS") == "", Args: args, ArgsOf: f.data.argsOf, Display: d,
		Policy: supervise.Policy{
			MaxRestarts: f.maxRestarts, LeaveGrace: f.leaveGrace, Hopeless: []int{codeUsage, codeData, codeForeign, codeFatal, codeExpelled},
		},
	}, nil
}

// tellOutcome says in a few lines what became of a launch that did not fail.
func (m *Main) tellOutcome(o fleet.Outcome, f launchFlags, path string) error {
	r := o.Result
	if !o.Finished {
		fmt.Fprintf(m.Stdout, "left at step %d after %s; to go on:\n  dlnode launch -n %d --dir %s %s\n", r.Step, took(o.Took), f.nodes, f.dir, path)
		return nil
	}
	fmt.Fprintf(m.Stdout, "finished at step %d after %s\n", r.Step, took(o.Took))
	if r.Checkpoint != "" { // else it was there before
		fmt.Fprintf(m.Stdout, "checkpoint    %s\n", r.Checkpoint)
	}
	fmt.Fprintf(m.Stdout, "model SHA-256 %s\n", r.ModelSHA256)
	m.tellWaiting(o.Nodes)
	return writeConfusions(m.Stdout, r.History)
}

// tellWaiting says which part of a step the nodes waited for samples.
func (m *Main) tellWaiting(all map[string]*train.Result) {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if p := all[id].Phases; p.Compute > 0 {
			parts = append(parts, id+" "+percent(p.Waiting()))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(m.Stdout, "data          waited for in each step: %s\n", strings.Join(parts, ", "))
	}
}

// took writes a duration for people, with tenths where these tell something.
func took(t time.Duration) string {
	if t < time.Minute {
		return fmt.Sprintf("%.1fs", t.Seconds())
	}
	return ui.Span(t)
}

// nodes is a number of nodes in words.
func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// fetch brings a job's data set into the cache, fetched and decoded, so that not
// every node does it for itself. Other data are the nodes' own affair.
func (m *Main) fetch(ctx context.Context, j *job.Job, f launchFlags) error {
	spec, ok := j.Data.(dataset.Spec)
	if !ok {
		return nil
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	meter := newFetchMeter(m.Stderr)
	defer meter.end()
	env := f.data.env(m.dataEnv(), f.dir)
	if f.data.where != fromPeers && f.data.cache != 0 {
		return nil // each node keeps its own part
	}
	env.Progress = meter.show
	return dataError(ctx, j.Blame("data", dataset.Prepare(ctx, spec, env)))
}

// display shows progress on standard output: live on a terminal, else in plain
// lines.
func (m *Main) display() *ui.Display {
	cfg := ui.Config{ASCII: !m.utf8()}
	if f, ok := m.Stdout.(*os.File); ok && m.getenv("TERM") != "dumb" {
		return ui.Open(f, cfg)
	}
	return ui.Start(m.Stdout, cfg, func() int { return 80 })
}

// utf8 tells whether the user's locale has box characters.
func (m *Main) utf8() bool {
	for _, key := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(m.getenv(key)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
