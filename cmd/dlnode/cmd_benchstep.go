package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/bench"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/ui"
	"github.com/dlnode/dlnode/job"
)

type benchStepFlags struct {
	nodes   []int
	threads int
	warm    uint64
	time    time.Duration
	rounds  int
	json    string
	pin     bool
}

func (m *Main) newBenchStepCommand() *cobra.Command {
	var f benchStepFlags
	c := &cobra.Command{
		Use:   "step job.yaml",
		Short: "Measure where the time of a job's steps goes, alone and with several processes",
		Long: "step trains a job for a while, without validation and checkpoints, by one process and by\n" +
			"several of this machine, in turns, and prints what of a step is spent computing, on the\n" +
			"all-reduce (and waiting for the slowest) and on the update: these three are all of it. data\n" +
			"and round are parts of compute, summed over threads; cpu is what a node's process used in\n" +
			"a step, in all, and allocs how many objects it took from the heap. Nothing is left of the\n" +
			"training.",
		Args: takes("job.yaml"),
		RunE: func(c *cobra.Command, args []string) error { return m.benchStep(c.Context(), args[0], f) },
	}
	fl := c.Flags()
	fl.IntSliceVarP(&f.nodes, "nodes", "n", []int{1, 2}, "`numbers` of nodes, comma-separated")
	fl.IntVar(&f.threads, "threads", 0, "microbatches that a node computes at the same time (default its share of the CPUs)")
	fl.BoolVar(&f.pin, "pin", true, pinUsage)
	fl.Uint64Var(&f.warm, "warm", 20, "`steps` before the measured ones")
	fl.DurationVar(&f.time, "time", 5*time.Second, "how long a turn is measured")
	fl.IntVar(&f.rounds, "rounds", 1, "turns of each number of nodes; the median is shown")
	fl.StringVar(&f.json, "json", "", "`file` to write all of it to, as JSON")
	return c
}

func (f benchStepFlags) check(j *job.Job) error {
	switch {
	case f.time <= 0 || f.time > time.Hour:
		return usage("--time: %v is not allowed (want more than 0, at most 1h)", f.time)
	case f.rounds < 1:
		return usage("--rounds: %d is not allowed (want at least 1)", f.rounds)
	case len(f.nodes) == 0:
		return usage("--nodes: nothing to measure")
	}
	for _, n := range f.nodes {
		if err := (launchFlags{nodes: n, threads: f.threads, minNodes: 1}).check(j); err != nil {
			return err
		}
	}
	return nil
}

func (m *Main) benchStep(ctx context.Context, path string, f benchStepFlags) (err error) {
	j, err := loadJob(path)
	if err != nil {
		return err
	}
	if err := f.check(j); err != nil {
		return err
	}
	if err := m.fetch(ctx, j, launchFlags{}); err != nil {
		return err
	}
	endless(j)
	dir, err := os.MkdirTemp("", "dlnode-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path = filepath.Join(dir, "job.yaml")
	if err := writeJob(j, path); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	r := &bench.StepReport{When: time.Now(), Job: j.Name, Batch: j.Batch.Global}
	for round := range f.rounds {
		for i, n := range f.nodes {
			m.benchProgress(fmt.Sprintf("%s, %s, turn %d of %d", j.Name, nodes(n), round+1, f.rounds))
			row, err := m.stepTurn(ctx, j, path, n, f, filepath.Join(dir, fmt.Sprintf("turn-%d-%d", round+1, i+1)))
			if err != nil {
				return err
			}
			r.Add(row)
		}
	}
	r.Settle()
	return m.tellReport(r, f.json, nil)
}

// endless makes a job that does nothing but steps, for longer than anyone measures.
func endless(j *job.Job) {
	j.Epochs = math.MaxInt32
	j.Validation, j.EarlyStopping, j.ReduceOnPlateau = nil, nil, nil
	j.Checkpoint.EverySteps = 0
}

// stepTurn is one turn of so many nodes.
func (m *Main) stepTurn(ctx context.Context, j *job.Job, path string, n int, f benchStepFlags, dir string) (bench.StepRow, error) {
	quiet := &tail{}
	d := ui.Start(quiet, ui.Config{ASCII: true}, func() int { return 80 })
	cfg, err := m.fleetConfig(j, path, launchFlags{nodes: n, threads: f.threads, pin: f.pin, minNodes: n, dir: dir, logLevel: "warn", leaveGrace: 30 * time.Second}, d)
	if err != nil {
		return bench.StepRow{}, errors.Join(err, d.Close())
	}
	row, err := bench.Steps(ctx, bench.StepConfig{Fleet: cfg, Warm: f.warm, Time: f.time, Ask: ask})
	if err := errors.Join(err, d.Close()); err != nil {
		return row, fmt.Errorf("%s: %w\n%s", nodes(n), err, quiet.text)
	}
	return row, nil
}

// tail keeps the end of what a fleet tells, for the case that something goes wrong.
type tail struct{ text []byte }

const tailBytes = 2000

// Write implements io.Writer; a ui.Display calls it from one goroutine at a time.
func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	t.text = slices.Delete(t.text, 0, max(0, len(t.text)-tailBytes))
	return len(b), nil
}
