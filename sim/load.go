package sim

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"sync"
	"time"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/train"
)

// Load is what a cluster trains: small, so that a schedule takes milliseconds,
// and with all that decides in it. It is immutable and shared by schedules.
type Load struct {
	Name string
	Task *train.Task
	Want [32]byte // SHA-256 of the final state; zero where it is not recorded yet

	train, validation []uint64 // ids of all samples

	once sync.Once
	way  map[uint64]uint64 // see sketches
}

// sketches returns, by transition, the sketches of the states that one node goes
// through alone in a perfect world.
func (l *Load) sketches() map[uint64]uint64 {
	l.once.Do(func() {
		l.way = map[uint64]uint64{0: sketch(l.Task.Start())}
		c := newCluster(Options{Load: l, Nodes: 1, Compute: 2 * time.Millisecond, Faults: Calm()})
		c.hook = func(alone *life, e any) {
			if _, is := e.(train.Committed); is {
				s := alone.host.Node().State()
				l.way[s.Transition] = sketch(s)
			}
		}
		c.startNodes()
		c.until(10*time.Minute, func() bool { return len(c.living()) == 0 })
	})
	return l.way
}

// NewLoads makes the loads of the simulator:
//
//	stops    Adam, dropout, validation, early stopping, best weights restored
//	plain    SGD with momentum and clipping, a short last batch, no validation
//	steep    a loss whose gradients grow and shrink by orders: exponents overflow
func NewLoads() ([]*Load, error) {
	var loads []*Load
	for _, make := range []func(*job.Job){stops, plain, steep} {
		l, err := newLoad(make)
		if err != nil {
			return nil, err
		}
		loads = append(loads, l)
	}
	return loads, nil
}

func newLoad(describe func(*job.Job)) (*Load, error) {
	j := job.Default()
	describe(j)
	return NewLoad(j)
}

// NewLoad makes a load of any job whose data is made: what the final state has
// to be is not known of it.
func NewLoad(j *job.Job) (*Load, error) {
	if _, made := j.Data.(*dataset.Synthetic); !made {
		return nil, fmt.Errorf("load %s: its data is no synthetic one", j.Name)
	}
	data, test, err := train.OpenData(context.Background(), j, dataset.Env{})
	if err != nil {
		return nil, err
	}
	task, err := train.NewTask(j, data, test)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", j.Name, err)
	}
	l := &Load{Name: j.Name, Task: task, train: idsOf(task.Train)}
	if task.Validation != nil {
		l.validation = idsOf(task.Validation)
	}
	return l, nil
}

func idsOf(d dataset.Dataset) (ids []uint64) {
	for i := range d.Len() {
		ids = append(ids, d.ID(i))
	}
	return ids
}

func adam(rate float64) job.Section {
	return &optim.Adam{LearningRate: optim.Constant(rate), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}
}

func stops(j *job.Job) {
	j.Name, j.Seed = "stops", 7
	j.Loss, j.Metrics = "sparse_categorical_crossentropy", []string{"accuracy"}
	j.Data = &dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}
	j.Model = []job.Section{nn.NewDense(16, "relu"), nn.NewDropout(0.2), nn.NewDense(3, "softmax")}
	j.Optimizer = adam(0.02)
	j.Batch, j.Epochs = job.Batch{Global: 40, Microbatch: 8}, 30
	j.Validation = &job.Validation{Split: 0.2}
	j.EarlyStopping = &job.EarlyStopping{Monitor: "val_accuracy", Patience: 5, Mode: "auto", RestoreBest: true}
	j.Checkpoint.EverySteps, j.Checkpoint.Keep, j.Checkpoint.Replicas = 5, 3, 2
}

func plain(j *job.Job) {
	j.Name, j.Seed = "plain", 11
	j.Loss, j.Metrics = "sparse_categorical_crossentropy", []string{"accuracy"}
	j.Data = &dataset.Synthetic{Samples: 110, TestSamples: 20, Features: 5, Classes: 4, Seed: 6}
	j.Model = []job.Section{nn.NewDense(13, "relu"), nn.NewDense(4, "softmax")}
	j.Optimizer = adam(0.05)
	j.ClipNorm = 0.5
	j.Batch, j.Epochs = job.Batch{Global: 24, Microbatch: 4}, 14
	j.Validation = nil
	j.EarlyStopping = nil
	j.Checkpoint.EverySteps, j.Checkpoint.Keep, j.Checkpoint.Replicas = 4, 2, 1
}

func steep(j *job.Job) {
	j.Name, j.Seed = "steep", 13
	j.Loss, j.Metrics = "sparse_categorical_crossentropy", nil
	j.Data = &dataset.Synthetic{Samples: 96, TestSamples: 20, Features: 7, Classes: 3, Seed: 8}
	j.Model = []job.Section{nn.NewDense(9, "relu"), nn.NewDense(3, "softmax")}
	j.Optimizer = adam(0.3)
	j.Batch, j.Epochs = job.Batch{Global: 16, Microbatch: 3}, 12
	j.Validation = &job.Validation{Split: 0.25}
	j.EarlyStopping = nil
	j.Checkpoint.EverySteps, j.Checkpoint.Keep, j.Checkpoint.Replicas = 6, 2, 3
}

// taskOf is the load's task for one life: it tells which records are read.
func (l *Load) taskOf(who *life) *train.Task {
	t := *l.Task
	t.Train = &reader{t.Train, who}
	if t.Validation != nil {
		t.Validation = &reader{t.Validation, who}
	}
	return &t
}

// reader is a data set that notes what is read.
type reader struct {
	dataset.Dataset
	who *life
}

func (r *reader) Read(i int, x, y []float32) (uint64, error) {
	id, err := r.Dataset.Read(i, x, y)
	if f := r.who.c.misread; f != nil {
		id = f(r.who, i, id)
	}
	r.who.read = append(r.who.read, id)
	return id, err
}

// fingerprint tells whether vectors have changed. Every step of it is a
// bijection, so one changed element always shows.
func fingerprint(vectors ...[]float32) uint64 {
	h := uint64(14695981039346656037)
	for _, v := range vectors {
		for _, x := range v {
			h = mix(h, uint64(math.Float32bits(x)))
		}
	}
	return h
}

func mix(h, x uint64) uint64 { return bits.RotateLeft64((h^x)*1099511628211, 23) }

// sketch is a quick digest of a state by what it shows to the outside; full
// digests are compared beside it wherever somebody computes one.
func sketch(s *train.State) uint64 {
	h := fingerprint(append(s.Slots(), s.Params())...)
	for _, x := range []uint64{s.Transition, s.Step, s.Samples, s.Skipped, s.Repeats, uint64(len(s.History)), uint64(len(s.Next))} {
		h = mix(h, x)
	}
	for _, exps := range [][]int16{s.GradExps, s.TrainExps, s.EvalExps} {
		for _, e := range exps {
			h = mix(h, uint64(e))
		}
	}
	for _, x := range s.Running {
		h = mix(h, math.Float64bits(float64(x)))
	}
	return mix(mix(h, uint64(s.Stopping.BestEpoch)), uint64(s.Stopping.Wait))
}
