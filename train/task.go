package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/shard"
)

// Numerics names the bits that this program computes. Any change after which
// some job ends in other bits (a kernel's order, a polynomial, the meaning of a
// field) raises it, so that two variants never meet in one run. The golden
// hashes of this package's tests change together with it, or not at all.
const Numerics = 2

// Task is what a trajectory is a function of, apart from the state that moves:
// job, data, model and plan. It is immutable and shared by everything on a node.
type Task struct {
	Job        *job.Job
	Train      dataset.Dataset // without the validation samples
	Validation dataset.Dataset // nil if none
	Test       dataset.Dataset // nil if none; no part of the trajectory
	Model      *nn.Model
	Optimizer  optim.Optimizer
	Plan       shard.Plan
	EvalPlan   shard.EvalPlan // of Validation
	Trajectory [32]byte       // T: everything is fenced by it

	canonical   []byte // the mathematical part of the job
	meaning     []byte // of the samples' numbers, as a checkpoint holds it; nil where there is nothing to tell
	data        [32]byte
	whole       dataset.Dataset // Train and Validation
	start       *State          // of transition 0
	startDigest [32]byte        // of start, before it belongs to a trajectory
	windows     []exact.Window
	augment     *augment.Augmenter // of the training samples; nil if they are shown as they are
	columns     []column           // what is summed over samples: loss, then the metrics
	scalars     []string           // names of the first of them, which are numbers
}

// NewTask builds the model of a job and checks that it fits the data. test may
// be nil.
func NewTask(j *job.Job, train, test dataset.Dataset) (*Task, error) {
	return newTask(j, train, test, nil)
}

// Fork is NewTask for a trajectory that starts from the weights and slots of a
// checkpoint of another one: same shapes, any other mathematics.
func Fork(j *job.Job, train, test dataset.Dataset, from *checkpoint.Snapshot) (*Task, error) {
	return newTask(j, train, test, from)
}

func newTask(j *job.Job, train, test dataset.Dataset, from *checkpoint.Snapshot) (*Task, error) {
	t := &Task{Job: j, Train: train, Test: test, canonical: j.Canonical()}
	if err := t.split(); err != nil {
		return nil, err
	}
	if err := t.build(); err != nil {
		return nil, err
	}
	t.data = t.fingerprint()
	t.meaning = dataset.MeaningOf(t.Train.Info()).Encode()
	if err := t.initialise(from); err != nil {
		return nil, err
	}
	t.startDigest = checkpoint.Digest(t.snapshot(t.start))
	t.Trajectory = t.trajectory()
	return t, nil
}

// split takes the validation samples from the end, as Keras does.
func (t *Task) split() error {
	all := t.Train
	t.whole = all
	n := all.Len()
	if n == 0 {
		return fmt.Errorf("data set %s has no samples", all.Info().Name)
	}
	if v := t.Job.Validation; v != nil {
		cut := n - int(float64(float64(n)*v.Split))
		if cut == 0 || cut == n {
			return t.Job.Blame("validation.split", fmt.Errorf("%v leaves %d of %d samples to train on", v.Split, cut, n))
		}
		t.Train, t.Validation = dataset.Slice(all, 0, cut), dataset.Slice(all, cut, n)
	}
	return nil
}

func (t *Task) build() error {
	j, info := t.Job, t.Train.Info()
	spec, err := j.Network()
	if err != nil {
		return err
	}
	model, err := nn.Build(spec, info.Input, nn.Target{Len: info.Target, Classes: info.Classes})
	if layer := (*nn.LayerError)(nil); errors.As(err, &layer) {
		return j.Blame("model"+layer.Path(), err)
	}
	if metric := (*nn.MetricError)(nil); errors.As(err, &metric) {
		return j.Blame(fmt.Sprintf("metrics[%d]", metric.Index), err)
	}
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if len(j.ClassWeight) > 0 && dataset.Weights(t.Train) != nil {
		return j.Blame("class_weight", fmt.Errorf("the samples of data set %s have weights of their own (want one or the other, as in Keras)", info.Name))
	}
	if j.Augment != nil {
		if t.augment, err = augment.New(*j.Augment, info.Input); err != nil {
			return j.Blame("augment", err)
		}
	}
	o, ok := j.Optimizer.(optim.Spec)
	if !ok {
		return errors.New("optimizer: the job names none")
	}
	t.Model = model
	t.Optimizer = optim.Over(o, moves(model), j.ClipNorm)
	t.Plan = shard.Plan{N: t.Train.Len(), Global: min(j.Batch.Global, t.Train.Len()), Micro: j.Batch.Microbatch, Seed: j.Seed}
	t.Plan.Micro = min(t.Plan.Micro, t.Plan.Global)
	if t.Validation != nil {
		t.EvalPlan = shard.EvalPlan{N: t.Validation.Len(), Micro: t.Plan.Micro}
	}
	for _, w := range model.Tensors() {
		t.windows = append(t.windows, exact.Window{Lo: w.Off, Hi: w.Off + w.Len})
	}
	t.columns, t.scalars = columnsOf(model)
	return t.Plan.Validate()
}

// moves says what moves each tensor of a model. What moves a statistic is summed
// and divided in the gradient's place, so that it needs no way of its own: not in
// the sums, nor in the ring, the state or a checkpoint.
func moves(m *nn.Model) []optim.Window {
	uses := map[nn.Use]optim.Use{nn.Weight: optim.Learned, nn.Frozen: optim.Kept, nn.Statistic: optim.Averaged}
	var all []optim.Window
	for _, t := range m.Tensors() {
		all = append(all, optim.Window{Lo: t.Off, Hi: t.Off + t.Len, Use: uses[t.Use], Momentum: t.Momentum, L1: t.Regularizer.L1, L2: t.Regularizer.L2})
	}
	return all
}

// fingerprint names the data with the index that all nodes agree on.
func (t *Task) fingerprint() [32]byte {
	h := sha256.New()
	f := t.Train.Fingerprint()
	h.Write(f[:])
	if t.Validation != nil {
		f = t.Validation.Fingerprint()
		h.Write(f[:])
	}
	return [32]byte(h.Sum(nil))
}

// trajectory is T of the design: job, data, numerics and starting state. What the
// data mean is in the starting state, as in every other: each of its bytes is that
// of a checkpoint.
func (t *Task) trajectory() [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "dlnode trajectory\nnumerics %d\n", Numerics)
	_ = binary.Write(h, binary.LittleEndian, uint64(len(t.canonical))) // a hash never fails
	h.Write(t.canonical)
	h.Write(t.data[:])
	h.Write(t.startDigest[:])
	return [32]byte(h.Sum(nil))
}

// Identity is what a node tells another that asks who it is.
type Identity struct {
	Numerics int
	Job      []byte // canonical
	Data     [32]byte
	Outline  dataset.Outline // of the data, to tell differences
	Meaning  [32]byte        // SHA-256 of what the samples' numbers mean
	Start    [32]byte        // digest of the starting state
}

// Identity returns this task's.
func (t *Task) Identity() Identity {
	return Identity{
		Numerics: Numerics, Job: t.canonical, Data: t.data, Outline: dataset.OutlineOf(t.whole),
		Meaning: sha256.Sum256(t.meaning), Start: t.startDigest,
	}
}

// Differences tells in words in what two identities differ.
func (id Identity) Differences(here, there string, other Identity) []string {
	var diff []string
	if id.Numerics != other.Numerics {
		diff = append(diff, fmt.Sprintf("program: numerics version %d on %s, %d on %s", id.Numerics, here, other.Numerics, there))
	}
	diff = append(diff, job.Diff(id.Job, other.Job)...)
	if id.Data != other.Data {
		diff = append(diff, id.Outline.Differences(here, there, other.Outline)...)
	}
	if id.Meaning != other.Meaning {
		diff = append(diff, fmt.Sprintf("data: names of classes, or how raw input becomes numbers: %x on %s, %x on %s", id.Meaning[:4], here, other.Meaning[:4], there))
	}
	if len(diff) == 0 && !bytes.Equal(id.Start[:], other.Start[:]) {
		diff = append(diff, "starting state: one run was forked from a checkpoint that the other was not")
	}
	if len(diff) == 0 {
		diff = append(diff, "starting state: the weights differ")
	}
	return diff
}

// StepsPerEpoch returns how many updates an epoch has.
func (t *Task) StepsPerEpoch() uint64 { return uint64(t.Plan.StepsPerEpoch()) }

// TotalSteps returns how many updates the job has unless it stops early.
func (t *Task) TotalSteps() uint64 { return t.StepsPerEpoch() * uint64(t.Job.Epochs) }

// Scalars lists the numbers of each epoch: the loss, then the job's metrics but
// for confusion_matrix.
func (t *Task) Scalars() []string { return t.scalars }
