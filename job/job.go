// Package job is the job file: everything a user says about one training run,
// checked and with every default written out.
//
// A file is YAML, read strictly. What is unknown, given twice, of another type
// or out of range is an error that names file, line, field, the value seen and
// what is allowed; all of them are told at once, in the order of their lines:
//
//	job.yaml:12: batch.microbatch: 0 is not allowed (want 1 to batch.global = 128)
//	job.yaml:15: epoch: unknown field (want name, seed, data, …; did you mean epochs?)
//
// A job has two halves. [Maths] names the trajectory: seed, data, model, loss,
// optimizer, batch and so on, all that can change a bit of the result. Its
// [Job.Canonical] form is hashed into the trajectory's name and kept in every
// checkpoint, and [Diff] tells two of them apart in words. [Running] holds what
// cannot change a bit (directories, how many checkpoints to keep, how many
// nodes to wait for) and may differ between nodes and change at a restart.
//
//	job.yaml ── Parse ──► Job ── Canonical ──► JSON of Maths ──► T, job.json
//	    ▲                  │                        │
//	    └───── Show ───────┘                        └── Diff, Parse (JSON is YAML)
//
// The sections for data set, layers and optimizer belong to other rooms. Each
// is a one-key map `kind: {fields}` (or the bare kind, with every default), and
// is decoded by reflection over the yaml tags of the struct which its room
// hands out pre-filled with defaults, so that a new layer needs no line here.
// A [Registry] says where they come from. A section may hold sections: layers of
// package nn in a layer.
//
// A job's canonical form is part of its trajectory's name for good. So a field that
// is added to a kind later carries the option later, or later=VALUE, in its yaml
// tag, and is left out of every form where it is zero, or VALUE: jobs that were
// written before it mean what they meant.
package job

import (
	"strings"

	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/nn"
)

// Section is one part of a job that another room defines: a layer, an
// optimizer, a data set. It is a pointer to a struct whose fields carry yaml
// tags and start with their defaults. Its method set equals those of
// nn.LayerSpec, optim.Spec and dataset.Spec, so values assign both ways.
type Section interface {
	// Kind is the key that the section stands under, such as "dense".
	Kind() string
	// Validate tells what is wrong with the fields. A text that begins with
	// "field: " is reported at that field's line; errors.Join tells several.
	Validate() error
}

// Job is a whole job file. The zero value is not usable; start from [Default]
// or [Parse].
type Job struct {
	Maths   `yaml:",inline"`
	Running `yaml:",inline"`

	source source // for Blame
}

// source remembers where a job came from.
type source struct {
	file  string
	lines map[string]int // by field; "" is there unless there is no file
}

// Blame wraps what was found out later about a field (that layers do not fit
// together, that a data file is damaged) into an [Error] that names the field's
// line, or the line of what is around it. A nil err stays nil.
func (j *Job) Blame(field string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{j.source.file, j.source.line(field), field, err.Error(), err}
}

// line finds the line of a field, or of the nearest thing around it; 0 where
// there is no file.
func (s source) line(field string) int {
	for {
		if line, ok := s.lines[field]; ok || field == "" {
			return line
		}
		field = parent(field)
	}
}

// Maths is the part of a job that the result is a function of. Its canonical
// form goes into the name of the trajectory.
type Maths struct {
	// Name keeps runs of otherwise equal jobs apart: letters, digits, '.',
	// '_' and '-', at most 64 of them.
	Name string `yaml:"name"`
	// Seed is the root of every random number of the run.
	Seed uint64 `yaml:"seed"`
	// Data is the data set to train and test on.
	Data Section `yaml:"data"`
	// Augment shows the training samples, which are images, in another way each
	// epoch; nil shows them as they are.
	Augment *augment.Spec `yaml:"augment,later"`
	// Model is the list of layers, input first.
	Model []Section `yaml:"model"`
	// Loss is one of Registry.Losses.
	Loss string `yaml:"loss"`
	// LabelSmoothing is the share of a label that a cross-entropy deals out
	// evenly to all classes, in [0, 1).
	LabelSmoothing float64 `yaml:"label_smoothing,later"`
	// ClassWeight multiplies the losses of training samples, class by class; none:
	// all count the same.
	ClassWeight []float64 `yaml:"class_weight,later"`
	// Metrics are reported beside the loss, each one of Registry.Metrics.
	Metrics []string `yaml:"metrics"`
	// Optimizer turns gradients into updates.
	Optimizer Section `yaml:"optimizer"`
	// ClipNorm is the largest global norm that a gradient keeps; 0 is no limit.
	ClipNorm float64 `yaml:"clip_norm"`
	// Batch is how many samples make a step, and a unit of work.
	Batch Batch `yaml:"batch"`
	// Epochs is how often the training samples are gone through, at least 1.
	Epochs int `yaml:"epochs"`
	// Validation sets samples aside; nil is none.
	Validation *Validation `yaml:"validation"`
	// EarlyStopping ends training before the last epoch; nil is never.
	EarlyStopping *EarlyStopping `yaml:"early_stopping"`
	// ReduceOnPlateau lowers the learning rate; nil is never.
	ReduceOnPlateau *ReduceOnPlateau `yaml:"reduce_on_plateau,later"`
	// OnNonfinite is what a NaN or an infinity in a gradient does: "stop" ends
	// the run and names step and tensor, "skip" skips that update everywhere.
	OnNonfinite string `yaml:"on_nonfinite"`
}

// Batch sizes, in samples.
type Batch struct {
	// Global is the number of samples of one step, whatever the number of
	// nodes: 1 to MaxGlobalBatch.
	Global int `yaml:"global"`
	// Microbatch is the number of samples that one rank computes at a time,
	// 1 to Global. It fixes the grouping of everything that is not summed
	// exactly, so it is part of the mathematics.
	Microbatch int `yaml:"microbatch"`
}

// MaxGlobalBatch bounds the number of terms of a sum, and so the bits which
// exact summation takes from each: 53 − log2(MaxGlobalBatch) are left.
const MaxGlobalBatch = 1 << 20

// Microbatches is the number of microbatches of a full step.
func (b Batch) Microbatches() int { return (b.Global + b.Microbatch - 1) / b.Microbatch }

// Validation says which samples are never trained on.
type Validation struct {
	// Split is the fraction of the training samples, taken from the end before
	// any shuffling as Keras does; in (0, 1).
	Split float64 `yaml:"split"`
}

// EarlyStopping ends training when a number stops getting better. All of its
// state is part of the replicated state, so that every node stops at the same
// step.
type EarlyStopping struct {
	// Monitor is "loss", a metric that is a number, or one of them with "val_"
	// before it.
	Monitor string `yaml:"monitor"`
	// Patience is how many epochs without improvement are borne; 0 is none.
	Patience int `yaml:"patience"`
	// MinDelta is the least change that counts as an improvement, at least 0.
	MinDelta float64 `yaml:"min_delta"`
	// Mode is "min", "max" or "auto", which is max for accuracies, precision,
	// recall, f1_score, their averages, and auc.
	Mode string `yaml:"mode"`
	// RestoreBest ends with the weights of the best epoch, not of the last.
	RestoreBest bool `yaml:"restore_best"`
}

// Maximizes reports whether greater values of the monitored number are better.
func (e *EarlyStopping) Maximizes() bool { return maximizes(e.Mode, e.Monitor) }

func maximizes(mode, monitor string) bool {
	return mode == "max" || mode == "auto" && nn.Increases(strings.TrimPrefix(monitor, "val_"))
}

// ReduceOnPlateau lowers the learning rate when a number stops getting better. As
// with early stopping, all of its state is part of the replicated state.
type ReduceOnPlateau struct {
	// Monitor is "loss", a metric that is a number, or one of them with "val_"
	// before it.
	Monitor string `yaml:"monitor"`
	// Factor is what the rate is multiplied by each time, in (0, 1).
	Factor float64 `yaml:"factor"`
	// Patience is how many epochs without improvement are borne, at least 1.
	Patience int `yaml:"patience"`
	// MinDelta is the least change that counts as an improvement, at least 0.
	MinDelta float64 `yaml:"min_delta"`
	// Cooldown is how many epochs after a reduction count for nothing.
	Cooldown int `yaml:"cooldown"`
	// Mode is "min", "max" or "auto", which is max for accuracies, precision,
	// recall, f1_score, their averages, and auc.
	Mode string `yaml:"mode"`
	// MinLR is what no reduction goes below.
	MinLR float64 `yaml:"min_lr"`
}

// Maximizes reports whether greater values of the monitored number are better.
func (r *ReduceOnPlateau) Maximizes() bool { return maximizes(r.Mode, r.Monitor) }

// Running is the part of a job that cannot change a bit of the result. It may
// differ between nodes and between starts.
type Running struct {
	Checkpoint Checkpoint `yaml:"checkpoint"`
	// MinNodes is how many nodes training waits for, at least 1.
	MinNodes int `yaml:"min_nodes"`
}

// Checkpoint says where, how often and how redundantly states are written.
type Checkpoint struct {
	// Dir is where checkpoints go, relative to the node's run directory.
	Dir string `yaml:"dir"`
	// EverySteps is the number of steps between two checkpoints; 0 writes one
	// at the end only.
	EverySteps int `yaml:"every_steps"`
	// Keep is how many of the newest checkpoints of a run stay; 0 keeps all.
	Keep int `yaml:"keep"`
	// Replicas is how many nodes write the same bytes, each to its own
	// directory, at least 1.
	Replicas int `yaml:"replicas"`
}

const (
	defaultOptimizer = "adam"
	// defaultMicrobatch is a compromise between large matrix products and
	// enough units of work to share out.
	defaultMicrobatch = 32
)

// Default returns a job with every default set. Data, Model and Loss have none.
func Default() *Job { return Standard().Default() }

// Default returns a job with every default set, of the registry's parts.
func (r Registry) Default() *Job {
	optimizer, ok := r.Optimizers.New(defaultOptimizer)
	if !ok {
		panic("job: a registry without " + defaultOptimizer)
	}
	return &Job{
		Maths: Maths{
			Name:        "job",
			Seed:        1,
			Optimizer:   optimizer,
			Batch:       Batch{Global: 128, Microbatch: defaultMicrobatch},
			Epochs:      1,
			OnNonfinite: "stop",
		},
		Running: Running{
			Checkpoint: Checkpoint{Dir: "checkpoints", EverySteps: 100, Keep: 3, Replicas: 2},
			MinNodes:   1,
		},
	}
}

// setDefaults makes {} a usable validation section.
func (v *Validation) setDefaults() { v.Split = 0.1 }

// setDefaults are Keras' own.
func (e *EarlyStopping) setDefaults() { *e = EarlyStopping{Monitor: "val_loss", Mode: "auto"} }

// setDefaults are Keras' own.
func (r *ReduceOnPlateau) setDefaults() {
	*r = ReduceOnPlateau{Monitor: "val_loss", Factor: 0.1, Patience: 10, MinDelta: 1e-4, Mode: "auto"}
}
