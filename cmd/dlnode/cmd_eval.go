package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

func (m *Main) newEvalCommand() *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval CHECKPOINT",
		Short: "Compute loss and metrics of a checkpoint on its job's data",
		Long: "Compute loss and metrics of a checkpoint on the data of the job that it was trained by.\n" +
			"CHECKPOINT is a checkpoint, or a directory around some: the newest undamaged one counts.\n" +
			"The job is in the checkpoint, apart from the paths of data files: name the job file for those.\n" +
			"The worst mistakes are the samples that the model is most sure of and wrong about.",
		Args: takes("CHECKPOINT"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.eval(c.Context(), args[0], f)
		},
	}
	c.Flags().StringVar(&f.part, "data", "test", "`part` of the data: train, validation or test")
	c.Flags().StringVar(&f.jobFile, "job", "", "job `file`, where the data lies in files of your own")
	c.Flags().IntVar(&f.worst, "worst", 0, "list the `N` worst mistakes; texts as the model reads them")
	c.Flags().StringVar(&f.pictures, "pictures", "", "draw the confusion matrix, and the worst mistakes of images, into a `directory`")
	c.Flags().BoolVar(&f.json, "json", false, "print a JSON object")
	return c
}

// evalFlags are the flags of dlnode eval.
type evalFlags struct {
	part, jobFile, pictures string
	worst                   int
	json                    bool
}

func (f evalFlags) validate() error {
	if f.part != "train" && f.part != "validation" && f.part != "test" {
		return usage("--data: %q is not allowed (want train, validation or test)", f.part)
	}
	if f.worst < 0 {
		return usage("--worst: %d is not allowed (want at least 0)", f.worst)
	}
	return nil
}

// evalResult is what eval prints.
type evalResult struct {
	Checkpoint string        `json:"checkpoint"`
	Step       uint64        `json:"step"`
	Epoch      int           `json:"epoch"`
	Data       string        `json:"data"`
	Samples    int           `json:"samples"`
	Values     []train.Value `json:"values"`
	Confusion  [][]uint64    `json:"confusion_matrix,omitempty"` // [of class, taken for class]
	Worst      []mistake     `json:"worst,omitempty"`
	Pictures   []string      `json:"pictures,omitempty"` // files
}

func (m *Main) eval(ctx context.Context, path string, f evalFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	snap, at, err := m.loadCheckpoint(path)
	if err != nil {
		return err
	}
	j, err := jobOf(snap, at, f.jobFile)
	if err != nil {
		return err
	}
	t, err := m.openTask(ctx, j)
	if err != nil {
		return err
	}
	if err := sameMeaning(t, snap, at); err != nil {
		return err
	}
	data, err := partOf(t, f.part)
	if err != nil {
		return err
	}
	r := evalResult{Checkpoint: at, Step: snap.Step, Epoch: snap.Epoch, Data: f.part, Samples: data.Len()}
	if r.Values, r.Confusion, err = evaluate(ctx, t, snap, data); err != nil {
		return err
	}
	if f.worst > 0 || f.pictures != "" {
		if err := m.findMistakes(ctx, t, snap, data, f, &r); err != nil {
			return err
		}
	}
	if f.json {
		return json.NewEncoder(m.Stdout).Encode(r)
	}
	return m.printEval(r, data.Info().ClassNames)
}

// sameMeaning checks that raw input becomes the numbers here that it became in
// training: a vocabulary that was counted anew would make figures of noise.
func sameMeaning(t *train.Task, snap *checkpoint.Snapshot, at string) error {
	there, err := dataset.DecodeMeaning(snap.Data)
	if err != nil {
		return exit(codeData, fmt.Errorf("%s: data.json: %w", at, err))
	}
	if there == nil {
		return nil // it does not say
	}
	here := dataset.MeaningOf(t.Train.Info())
	if diff := here.Differences("here", "there", there); len(diff) > 0 {
		return exit(codeForeign, fmt.Errorf("the data here are others than those of %s (there):\n  %s", at, strings.Join(diff, "\n  ")))
	}
	return nil
}

// jobOf returns the job that a checkpoint was trained by: the job file if there
// is one, which must be the same in all that decides the result.
func jobOf(snap *checkpoint.Snapshot, at, jobFile string) (*job.Job, error) {
	if jobFile != "" {
		j, err := loadJob(jobFile)
		if err != nil {
			return nil, err
		}
		if diff := job.Diff(j.Canonical(), snap.Job); len(diff) > 0 {
			return nil, exit(codeForeign, fmt.Errorf("%s (here) is another job than that of %s (there):\n  %s", jobFile, at, strings.Join(diff, "\n  ")))
		}
		return j, nil
	}
	maths, err := job.Restore(snap.Job)
	if err != nil {
		return nil, exit(codeData, fmt.Errorf("%s: %w", at, err))
	}
	if maths.Data.Validate() != nil {
		return nil, usage("%s does not say in which files its data lies: name the job file with --job", at)
	}
	j := job.Default()
	j.Maths = *maths
	return j, nil
}

// partOf returns a part of a task's data.
func partOf(t *train.Task, part string) (dataset.Dataset, error) {
	parts := map[string]dataset.Dataset{"train": t.Train, "validation": t.Validation, "test": t.Test}
	if d := parts[part]; d != nil {
		return d, nil
	}
	var have []string
	for _, name := range []string{"train", "validation", "test"} {
		if parts[name] != nil {
			have = append(have, name)
		}
	}
	return nil, usage("--data: the job has no %s data (want %s)", part, strings.Join(have, " or "))
}

// evaluate runs a checkpoint's weights over a data set.
func evaluate(ctx context.Context, t *train.Task, snap *checkpoint.Snapshot, data dataset.Dataset) ([]train.Value, [][]uint64, error) {
	params, err := t.LoadModel(snap)
	if err != nil {
		return nil, nil, exit(codeForeign, err)
	}
	e, err := t.Evaluate(ctx, params, data)
	if err != nil {
		return nil, nil, dataError(ctx, err)
	}
	values := make([]train.Value, len(e.Scalars))
	for i, name := range t.Scalars() {
		values[i] = train.Value{Name: name, Value: train.Number(e.Scalars[i])}
	}
	return values, e.Confusion, nil
}

func (m *Main) printEval(r evalResult, classes []string) error {
	w := tabwriter.NewWriter(m.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "checkpoint\t%s\n", r.Checkpoint)
	fmt.Fprintf(w, "trained\t%d steps, %d epochs\n", r.Step, r.Epoch)
	fmt.Fprintf(w, "data\t%s, %d samples\n", r.Data, r.Samples)
	for _, v := range r.Values {
		fmt.Fprintf(w, "%s\t%.6g\n", v.Name, float64(v.Value))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Confusion != nil {
		if err := writeConfusion(m.Stdout, "confusion matrix", r.Confusion, classes); err != nil {
			return err
		}
	}
	if err := writeMistakes(m.Stdout, r.Worst); err != nil {
		return err
	}
	for _, path := range r.Pictures {
		fmt.Fprintln(m.Stdout, path)
	}
	return nil
}
