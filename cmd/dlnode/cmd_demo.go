package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/fleet"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/ui"
	"github.com/dlnode/dlnode/examples"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// demoFlags are the flags of dlnode demo.
type demoFlags struct {
	nodes, epochs, threads int
	job, dir               string
	keep, noChaos          bool
}

func (m *Main) newDemoCommand() *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use:   "demo",
		Short: "Train MNIST on four processes, kill one, and get the model of one process",
		Long: "demo fetches MNIST and trains the network of the Keras tutorial with four processes of\n" +
			"this machine. On the way it kills the coordinator with SIGKILL and lets a fresh node join.\n" +
			"Then it trains the same job with one process and compares the models byte for byte.",
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error { return m.demo(c.Context(), f) },
	}
	fl := c.Flags()
	fl.IntVarP(&f.nodes, "nodes", "n", 4, "how many nodes to start")
	fl.IntVar(&f.epochs, "epochs", 0, "how often the training samples are gone through (default the job's)")
	fl.IntVar(&f.threads, "threads", 0, "microbatches that a node computes at the same time (default its share of the CPUs)")
	fl.BoolVar(&f.noChaos, "no-chaos", false, "kill nobody, let nobody join")
	fl.StringVar(&f.job, "job", "", "another job `file` than the one built in")
	fl.StringVar(&f.dir, "dir", "", "empty `directory` to work in (default a temporary one, which is removed)")
	fl.BoolVar(&f.keep, "keep", false, "do not remove the working directory")
	return c
}

// errInterrupted ends a demo that the user has seen enough of.
var errInterrupted = errors.New("interrupted")

func (m *Main) demo(ctx context.Context, f demoFlags) error {
	j, err := f.load()
	if err != nil {
		return err
	}
	if err := (launchFlags{nodes: f.nodes, threads: f.threads}).check(j); err != nil {
		return err
	}
	dir, temporary, err := m.demoDir(f.dir)
	if err != nil {
		return err
	}
	err = m.perform(ctx, j, f, dir)
	if errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	if temporary && !f.keep && (err == nil || errors.Is(err, errInterrupted)) {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err == nil {
		m.leaveCurves(filepath.Join(dir, "several"))
		m.leaveCurves(filepath.Join(dir, "one"))
	}
	fmt.Fprintf(m.Stdout, "everything is in %s\n", dir)
	return err
}

// load returns the job to train, with what the flags change.
func (f demoFlags) load() (*job.Job, error) {
	var j *job.Job
	var err error
	if f.job != "" {
		j, err = loadJob(f.job)
	} else {
		j, err = job.Parse("mnist-mlp.yaml (built in)", examples.MNIST)
	}
	switch {
	case err != nil:
		return nil, exit(codeUsage, err)
	case f.epochs < 0:
		return nil, usage("--epochs: %d is not allowed (want at least 1)", f.epochs)
	case f.epochs > 0:
		j.Epochs = f.epochs
	}
	return j, exit(codeUsage, j.Validate())
}

// demoDir returns an empty directory. Nothing of an earlier run may lie in it:
// the model to compare with is made from nothing.
func (m *Main) demoDir(dir string) (path string, temporary bool, err error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", false, err
		}
		inside, err := os.ReadDir(dir)
		if err == nil && len(inside) > 0 {
			err = usage("--dir: %s is not empty", dir)
		}
		return dir, false, err
	}
	path, err = os.MkdirTemp("", "dlnode-demo-")
	return path, true, err
}

// perform is the demo: several nodes with trouble, then one without, and both
// models.
func (m *Main) perform(ctx context.Context, j *job.Job, f demoFlags, dir string) error {
	if err := m.fetch(ctx, j, launchFlags{}); err != nil {
		return err
	}
	path := filepath.Join(dir, "job.yaml")
	if err := writeJob(j, path); err != nil {
		return err
	}
	trouble := &chaos{nodes: f.nodes, off: f.noChaos}
	flags := launchFlags{nodes: f.nodes, threads: f.threads, pin: true, dir: filepath.Join(dir, "several"), logLevel: "info"}
	several, err := m.act(ctx, j, path, flags, trouble)
	if err != nil {
		return err
	}
	fmt.Fprintf(m.Stdout, "%s took %s%s\n", nodes(f.nodes), took(several.Took), trouble.summary())
	if err := m.tellTest(ctx, j, several.Result.Checkpoint); err != nil {
		return err
	}
	fmt.Fprintf(m.Stdout, "model SHA-256  %s\n\nthe same job once more, in one process from nothing\n", several.Result.ModelSHA256)
	flags.nodes, flags.dir = 1, filepath.Join(dir, "one")
	one, err := m.act(ctx, j, path, flags, &chaos{off: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(m.Stdout, "1 node took %s\nmodel SHA-256  %s\n", took(one.Took), one.Result.ModelSHA256)
	return m.compare(several.Result, one.Result)
}

// writeJob writes the job file that the nodes read.
func writeJob(j *job.Job, path string) error {
	var text bytes.Buffer
	if err := j.Show(&text); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// act trains a job to its end under the eyes of chaos.
func (m *Main) act(ctx context.Context, j *job.Job, path string, f launchFlags, c *chaos) (fleet.Outcome, error) {
	d := m.display()
	cfg, err := m.fleetConfig(j, path, f, d)
	if err != nil {
		return fleet.Outcome{}, errors.Join(err, d.Close())
	}
	cfg.Watch = func(f *fleet.Fleet, p train.Progress) { c.watch(f, p) }
	greet(d, j, f)
	o, err := runFleet(ctx, cfg)
	if err = errors.Join(err, d.Close(), c.err); err == nil && !o.Finished {
		err = errInterrupted
	}
	return o, err
}

// tellTest prints how good a model is on samples that training never saw.
func (m *Main) tellTest(ctx context.Context, j *job.Job, path string) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	snap, _, err := m.loadCheckpoint(path)
	if err != nil {
		return err
	}
	t, err := m.openTask(ctx, j)
	if err != nil || t.Test == nil {
		return err
	}
	values, _, err := evaluate(ctx, t, snap, t.Test)
	if err != nil {
		return err
	}
	for _, v := range values {
		fmt.Fprintf(m.Stdout, "%-14s %s\n", "test "+v.Name, ui.Number(float64(v.Value)))
	}
	return nil
}

// compare is the point of it all.
func (m *Main) compare(several, one train.Result) error {
	if several.ModelSHA256 != one.ModelSHA256 {
		return errors.New("the two models differ: this is a bug in dlnode, please report it")
	}
	if several.StateSHA256 != one.StateSHA256 {
		return fmt.Errorf("the models are equal, but the states are not (%s and %s): this is a bug in dlnode, please report it", several.StateSHA256, one.StateSHA256)
	}
	_, err := fmt.Fprintln(m.Stdout, "equal")
	return err
}

// chaos makes trouble on the way: it kills the coordinator, and later has a
// fresh node join.
type chaos struct {
	nodes  int // at the start
	off    bool
	killed string // who was
	joined string // who did
	err    error
}

// When chaos strikes, in hundredths of all steps.
const (
	killAt = 30
	joinAt = 55
)

// actor is what chaos needs of a fleet.
type actor interface {
	Kill(id, why string) error
	Add(id, why string) error
}

// watch sees how far training is. A node alone is not killed: nobody would be
// left to go on.
func (c *chaos) watch(f actor, p train.Progress) {
	switch done := 100 * p.Step; {
	case c.off || c.err != nil:
	case c.killed == "" && done >= killAt*p.Steps && p.World > 1 && p.Coordinator != "":
		c.killed = p.Coordinator
		c.err = f.Kill(c.killed, fmt.Sprintf("step %d: SIGKILL for %s, the coordinator", p.Step, c.killed))
	case c.joined == "" && done >= joinAt*p.Steps && (c.killed != "" || c.nodes == 1):
		c.joined = fleet.NodeID(c.nodes + 1)
		c.err = f.Add(c.joined, fmt.Sprintf("step %d: a fresh %s starts", p.Step, c.joined))
	}
}

// summary says what trouble there was, for the end of a sentence.
func (c *chaos) summary() string {
	switch {
	case c.off:
		return ""
	case c.killed == "" && c.joined == "":
		return " (too short for any trouble: try more epochs)"
	case c.killed == "":
		return fmt.Sprintf("; %s joined", c.joined)
	case c.joined == "":
		return fmt.Sprintf("; %s was killed", c.killed)
	}
	return fmt.Sprintf("; %s was killed, %s joined", c.killed, c.joined)
}
