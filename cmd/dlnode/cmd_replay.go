package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/chart"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/runlog"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// recomputeFlags are the flags of replay and audit: what it takes to compute steps
// of a run once more.
type recomputeFlags struct {
	checkpoints, run, jobFile, fork string
	threads                         int
	json                            bool
	data                            dataFlags
}

func (f *recomputeFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.jobFile, "job", "", "job `file`, where the data lies in files of your own")
	fl.StringVar(&f.fork, "fork", "", "the checkpoint's `directory` that the run was forked from")
	fl.IntVar(&f.threads, "threads", 0, "microbatches computed at the same time (default the number of CPUs)")
	fl.BoolVar(&f.json, "json", false, "print a JSON object")
	f.data.add(c, "which is not possible here")
}

func (f *recomputeFlags) validate() error {
	switch {
	case f.threads < 0:
		return usage("--threads: %d is not allowed (want at least 0, which stands for the default)", f.threads)
	case f.data.where == fromPeers:
		return usage("--data: peers is not allowed here, where there are none (want a directory or URL)")
	}
	return nil
}

func (m *Main) newReplayCommand() *cobra.Command {
	var f recomputeFlags
	var step uint64
	c := &cobra.Command{
		Use:   "replay --checkpoint DIR --step T",
		Short: "Compute a step of a run once more, alone, and compare it with what was recorded",
		Long: "replay starts from the newest checkpoint before step T and computes the steps up to it\n" +
			"once more, on this machine alone. Each is compared with what the nodes of the run wrote\n" +
			"into their journals: the state before it, its gradient, and each node's part of that. The\n" +
			"first difference is told, with the nodes whose part it was, and the exit code is 1.\n" +
			checkpointDirs + "\n" +
			"The journals are those of the run directory around DIR, or of --run.",
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error { return m.replay(c.Context(), f, step) },
	}
	c.Flags().StringVar(&f.checkpoints, "checkpoint", "", "`directory` of the checkpoint to start from, or around some")
	c.Flags().Uint64Var(&step, "step", 0, "the `step` to compute, from 1")
	c.Flags().StringVar(&f.run, "run", "", "run `directory` with the journals (default that around --checkpoint)")
	f.add(c)
	return c
}

func (m *Main) replay(ctx context.Context, f recomputeFlags, step uint64) error {
	switch {
	case f.checkpoints == "":
		return usage("replay: --checkpoint is missing (want a directory with checkpoints, such as that of the run)")
	case step == 0:
		return usage("replay: --step is missing (want the step to compute, from 1)")
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	r, err := m.openRecompute(ctx, f)
	if err != nil {
		return err
	}
	if !slices.Contains(r.log.Steps(), step) {
		return exit(codeData, fmt.Errorf("replay: step %d is in no journal of %s, which tell of %s", step, r.log.Dir, span(r.log.Steps())))
	}
	b, err := r.baseOf(step, true)
	if err != nil {
		return err
	}
	p, diff, err := r.from(ctx, b, []uint64{step}, "")
	if err != nil {
		return err
	}
	switch {
	case f.json:
		if err := json.NewEncoder(m.Stdout).Encode(r.replayed(step, b, p, diff)); err != nil {
			return err
		}
	case diff != nil:
		fmt.Fprintln(m.Stdout, strings.Join(diff.Lines, "\n"))
	default:
		fmt.Fprintf(m.Stdout, "step %d came out as it was recorded, recomputed from %s\n", step, b)
		fmt.Fprintf(m.Stdout, "gradient      %s\nstate before  %s\n", p.Last.Gradient, p.Last.Watch)
		m.tellCompared(p)
	}
	if diff != nil { // no error of this program, but its exit code is to tell scripts
		return exit(codeFailed, fmt.Errorf("step %d is not what the run recorded", diff.Step))
	}
	return r.believed()
}

// replayResult is what replay tells with --json.
type replayResult struct {
	Step        uint64             `json:"step"`
	Agrees      bool               `json:"agrees"`
	From        uint64             `json:"from_step"`              // it was recomputed from that one on
	Checkpoint  string             `json:"checkpoint,omitempty"`   // of it; none is the starting state
	Gradient    string             `json:"gradient,omitempty"`     // of the step, where it was reached
	StateBefore string             `json:"state_before,omitempty"` // likewise
	Compared    int                `json:"compared"`               // transitions
	ByNode      map[string]uint64  `json:"by_node"`                // of them those that each node's journal tells of
	Unrecorded  int                `json:"unrecorded"`             // transitions that no journal tells of
	Met         map[uint64]string  `json:"checkpoints_met"`        // SHA-256 of those that came out to the byte, by transition
	Difference  *runlog.Difference `json:"difference,omitempty"`   // the first
	Flawed      int                `json:"flawed_lines"`           // of the journals: not as they were written, left out
}

func (r *recompute) replayed(step uint64, b base, p *runlog.Replay, diff *runlog.Difference) replayResult {
	got := replayResult{
		Step: step, Agrees: diff == nil, From: b.step, Checkpoint: b.path, Compared: p.Compared, ByNode: p.Heard, Unrecorded: p.Unrecorded,
		Met: map[uint64]string{}, Difference: diff, Flawed: len(r.log.Flaws),
	}
	if diff == nil {
		got.Gradient, got.StateBefore = p.Last.Gradient, p.Last.Watch
	}
	for _, t := range p.Met {
		got.Met[t] = fmt.Sprintf("%x", p.Known[t])
	}
	return got
}

// tellCompared says how much stands behind an agreement.
func (m *Main) tellCompared(p *runlog.Replay) {
	var by []string
	for _, node := range p.Log.Nodes {
		if n := p.Heard[node]; n > 0 {
			by = append(by, fmt.Sprintf("%s %d", node, n))
		}
	}
	fmt.Fprintf(m.Stdout, "compared      %d transitions (of %s)\n", p.Compared, strings.Join(by, ", "))
	if p.Unrecorded > 0 {
		fmt.Fprintf(m.Stdout, "not compared  %d transitions on the way, which are in no journal\n", p.Unrecorded)
	}
	for _, t := range p.Met {
		fmt.Fprintf(m.Stdout, "checkpoint    of transition %d: the same to the byte, SHA-256 %x\n", t, p.Known[t])
	}
}

// recompute is a run opened to be computed once more.
type recompute struct {
	m     *Main
	f     recomputeFlags
	log   *runlog.Log
	found *checkpoints
	task  *train.Task
}

// openRecompute opens journals, checkpoints, job and data, and checks that they
// belong together.
func (m *Main) openRecompute(ctx context.Context, f recomputeFlags) (*recompute, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	found, err := findCheckpoints(f.checkpoints)
	if err != nil {
		return nil, err
	}
	if runs := found.trajectories(); len(runs) > 1 {
		return nil, usage("%s holds checkpoints of %d trajectories (want one of %s)", f.checkpoints, len(runs), strings.Join(runs, ", "))
	}
	r := &recompute{m: m, f: f, found: found}
	if r.log, err = m.openLog(runAround(f)); err != nil {
		return nil, err
	}
	return r, r.open(ctx)
}

// runAround is the run directory whose journals are meant.
func runAround(f recomputeFlags) string {
	if f.run != "" {
		return f.run
	}
	dir := f.checkpoints
	for range 4 { // RUN/checkpoints/TRAJECTORY/TRANSITION
		if _, err := chart.Journals(dir); err == nil {
			return dir
		}
		dir = filepath.Join(dir, "..")
	}
	return f.checkpoints
}

// openLog reads the journals of a run, and tells what of them cannot be believed.
func (m *Main) openLog(dir string) (*runlog.Log, error) {
	l, err := runlog.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exit(codeData, fmt.Errorf("journals: %w", err))
	}
	if err != nil {
		return nil, exit(codeData, err)
	}
	m.tellFlaws(l.Flaws)
	if l.Torn > 0 {
		fmt.Fprintf(m.Stderr, "dlnode: %s: lines that a node did not end, as it was killed: %d\n", dir, l.Torn)
	}
	if l.Old > 0 {
		fmt.Fprintf(m.Stderr, "dlnode: %s: lines without checksums, of an older dlnode, taken as they are: %d\n", dir, l.Old)
	}
	if ts := l.Trajectories(); len(ts) > 1 {
		return nil, exit(codeForeign, fmt.Errorf("%s: the journals below it are of %d trajectories: name the directory of one run", dir, len(ts)))
	}
	return l, nil
}

// open makes the task of a checkpoint's job.
func (r *recompute) open(ctx context.Context) error {
	snap, at, err := r.m.loadCheckpoint(r.f.checkpoints)
	if err != nil {
		return err
	}
	var j *job.Job
	if j, err = jobOf(snap, at, r.f.jobFile); err != nil {
		return err
	}
	from, err := forkFrom(r.f.fork)
	if err != nil {
		return err
	}
	if r.task, err = r.m.task(ctx, j, from, r.f.data.env(r.m.dataEnv(), r.log.Dir)); err != nil {
		return err
	}
	if err := sameMeaning(r.task, snap, at); err != nil {
		return err
	}
	here := hex.EncodeToString(r.task.Trajectory[:])
	if snap.Trajectory != r.task.Trajectory {
		return exit(codeForeign, fmt.Errorf("%s is of trajectory %x, its job with the data here makes %.16s: data, program or starting state (--fork) are others", at, snap.Trajectory[:8], here))
	}
	if ts := r.log.Trajectories(); len(ts) == 1 && ts[0] != here {
		return exit(codeForeign, fmt.Errorf("the journals of %s are of trajectory %.16s, the checkpoints of %.16s: name the run with --run", r.log.Dir, ts[0], here))
	}
	return nil
}

// base is a state that steps are recomputed from: a checkpoint, or the start.
type base struct {
	path string // "" is the starting state
	step uint64
	snap *checkpoint.Snapshot
}

func (b base) String() string {
	if b.path == "" {
		return "the starting state"
	}
	return fmt.Sprintf("the checkpoint of step %d", b.step)
}

// baseOf returns the newest undamaged state before a step, of the checkpoints or,
// with start, the starting state.
func (r *recompute) baseOf(step uint64, start bool) (base, error) {
	for _, e := range slices.Backward(r.found.entries) {
		if e.Err == nil && e.Manifest.Step >= step {
			continue
		}
		snap, err := r.found.store.Load(e.Path)
		if err == nil {
			return base{e.Path, snap.Step, snap}, nil
		}
		if r.found.single {
			return base{}, exit(codeData, err)
		}
		fmt.Fprintf(r.m.Stderr, "dlnode: passed over %s\n", damageText(e.Path, err))
	}
	if r.found.single {
		return base{}, usage("%s is of step %d, which does not come before step %d (want an older one, or the directory of all)",
			r.f.checkpoints, r.found.entries[0].Manifest.Step, step)
	}
	if !start {
		return base{}, exit(codeData, fmt.Errorf("no undamaged checkpoint before step %d in %s", step, r.f.checkpoints))
	}
	return base{}, nil
}

// from recomputes steps from a base on, until all are done or one differs. A terminal is
// told how far it is, and how far all is of which this is a part.
func (r *recompute) from(ctx context.Context, b base, steps []uint64, of string) (*runlog.Replay, *runlog.Difference, error) {
	run, err := train.NewRecomputer(r.task, b.snap, r.f.threads)
	if err != nil {
		return nil, nil, exit(codeData, err)
	}
	defer run.Close()
	p := &runlog.Replay{Log: r.log, Run: run, Known: map[uint64][32]byte{}}
	for _, e := range r.found.entries {
		if e.Err == nil && e.Path != b.path {
			p.Known[e.Transition] = e.Manifest.Digest()
		}
	}
	meter := newFetchMeter(r.m.Stderr)
	defer meter.end()
	last := slices.Max(steps)
	if meter.live {
		p.Tell = func(step uint64) {
			meter.show(dataset.Progress{Doing: "recomputing", File: fmt.Sprintf("steps %d to %d%s", b.step+1, last, of), Done: int64(step - b.step), Total: int64(last - b.step)})
		}
	}
	diff, err := p.To(ctx, last)
	return p, diff, dataError(ctx, err)
}

// believed is an error where lines of the journals are not as they were written:
// what agrees is what is left of them.
func (r *recompute) believed() error {
	if n := len(r.log.Flaws); n > 0 {
		return exit(codeData, fmt.Errorf("%d lines of the journals are not as they were written, and were left out", n))
	}
	return nil
}

// span says which steps there are.
func span(steps []uint64) string {
	if len(steps) == 0 {
		return "none"
	}
	return fmt.Sprintf("steps %d to %d", steps[0], steps[len(steps)-1])
}
