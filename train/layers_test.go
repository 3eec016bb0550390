package train

import (
	"context"
	"math"
	"testing"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/shard"
)

// layerModels has every kind of layer, each of them at work in training.
func layerModels() map[string][]job.Section {
	conv := func(filters int) *nn.Conv2D {
		c := nn.NewConv2D(filters, nn.Pair{2, 2}, "relu")
		c.Padding = "same"
		return c
	}
	lstm, gru := nn.NewLSTM(5), nn.NewGRU(4)
	lstm.ReturnSequences, lstm.Dropout, lstm.RecurrentDropout = true, 0.2, 0.1
	gru.Dropout, gru.RecurrentDropout = 0.1, 0.2
	frozen := nn.NewDense(6, "tanh")
	frozen.Trainable = false
	return map[string][]job.Section{
		"images": {
			nn.NewReshape(3, 2, 1), conv(4), nn.NewBatchNormalization(), &nn.SpatialDropout2D{Rate: 0.2},
			nn.NewResidual(conv(4), nn.NewBatchNormalization()), nn.NewMaxPooling2D(nn.Pair{2, 1}),
			nn.NewConcat([]nn.LayerSpec{conv(2), nn.NewLayerNormalization()}, []nn.LayerSpec{&nn.AveragePooling2D{Pooling: nn.Pooling{PoolSize: nn.Pair{1, 1}, Padding: "valid"}}}),
			&nn.GlobalAveragePooling2D{}, frozen, nn.NewDense(3, "softmax"),
		},
		"sequences": {nn.NewReshape(3, 2), nn.NewBidirectional(lstm), gru, nn.NewDropout(0.2), nn.NewDense(3, "softmax")},
	}
}

func layerTask(t *testing.T, model []job.Section) *Task {
	t.Helper()
	j := *simTask(t).Job
	j.Model, j.Epochs = model, 2
	return layerTaskOf(t, &j)
}

// layerTaskOf builds a job over simTask's data.
func layerTaskOf(t *testing.T, j *job.Job) *Task {
	t.Helper()
	train, test, err := (&dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}).Generate()
	if err != nil {
		t.Fatal(err)
	}
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// Moving statistics move once a step, towards the mean of the microbatches'
// statistics weighted by their samples; the optimizer has no hand in it, and
// frozen weights stay.
func TestStatisticsMoveByExactMeansAndFrozenWeightsStay(t *testing.T) {
	task := layerTask(t, []job.Section{nn.NewBatchNormalization(), nn.NewDense(3, "softmax")})
	s := task.Start()
	before := append([]float32(nil), s.params...)

	// What the step should see: the samples of step 0, microbatch by microbatch.
	const features = 6
	var mean, variance [features]float64
	info := task.Train.Info()
	x, y := make([]float32, info.InputLen()), make([]float32, info.Target)
	for mb := range task.Plan.Microbatches(0) {
		var rows [][]float32
		for _, i := range task.Plan.Samples(0, mb, nil) {
			if _, err := task.Train.Read(i, x, y); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, append([]float32(nil), x...))
		}
		for j := range features {
			var m, v float64
			for _, r := range rows {
				m += float64(r[j]) / float64(len(rows))
			}
			for _, r := range rows {
				v += (float64(r[j]) - m) * (float64(r[j]) - m) / float64(len(rows))
			}
			mean[j] += m * float64(len(rows)) / float64(task.Plan.Count(0))
			variance[j] += v * float64(len(rows)) / float64(task.Plan.Count(0))
		}
	}

	one := oneStep(t, task, s)
	for _, w := range task.Model.Tensors() {
		for j, got := range one.params[w.Off : w.Off+w.Len] {
			var want float64
			switch w.Name {
			case "batch_normalization/moving_mean":
				want = 0.01 * mean[j]
			case "batch_normalization/moving_variance":
				want = 0.99 + 0.01*variance[j]
			default:
				continue
			}
			if math.Abs(float64(got)-want) > 1e-6*math.Abs(want)+1e-8 {
				t.Errorf("%s[%d] = %v, want %v", w.Name, j, got, want)
			}
		}
	}
	if got := one.params[0]; got == before[0] {
		t.Error("gamma has not moved")
	}

	models := layerModels()
	task = layerTask(t, models["images"])
	s = task.Start()
	before = append([]float32(nil), s.params...)
	one = oneStep(t, task, s)
	for _, w := range task.Model.Tensors() {
		moved := false
		for i := w.Off; i < w.Off+w.Len; i++ {
			moved = moved || one.params[i] != before[i]
		}
		if moved == (w.Use == nn.Frozen) {
			t.Errorf("%s: moved is %v", w.Name, moved)
		}
	}
}

// oneStep makes the first update as one rank, by the road of a real one.
func oneStep(t *testing.T, task *Task, s *State) *State {
	t.Helper()
	e, a := NewEngine(task, 1), task.attempt(s)
	for {
		c, err := e.Compute(context.Background(), a, shard.Range{Hi: task.microbatches(a)}, s.params, nil)
		if err != nil {
			t.Fatal(err)
		}
		vd := &verdict{grad: c.Grad.Seen(), scalar: c.Scalars.Seen(), scalars: c.Scalars.Acc(), count: c.Count}
		a.Rotation = 1
		task.judgeExponents(a, ranks(1), nil, vd)
		if vd.fatal != nil {
			t.Fatal(vd.fatal)
		}
		if vd.again != nil {
			a = vd.again
			continue
		}
		grads := make([]float32, len(s.params))
		exact.Finish(grads, c.Grad.Acc(), 0, task.windows, a.Grad, c.Grad.Bits(), float64(c.Count))
		task.commit(s, a, vd, grads, nil, inTurn)
		return s
	}
}
