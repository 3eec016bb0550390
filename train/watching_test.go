package train

import (
	"context"
	"testing"
	"time"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/shard"
)

// BenchmarkWhatWatchingItselfCosts measures, for one of three ranks of a dense network
// on 784 inputs (0.5 million parameters, Adam, 48 microbatches of 8), on one thread: a
// step, the digest that rides on each header, and an audit, of which there is one in as
// many steps as Node.auditEvery says. The shares are of the step's computing and
// update; what the all-reduce takes comes to that, and makes them smaller.
//
//	go test ./train -run '^$' -bench WatchingItself -benchtime 20x
func BenchmarkWhatWatchingItselfCosts(b *testing.B) {
	data := &dataset.Synthetic{Samples: 4000, TestSamples: 10, Features: 784, Classes: 10, Seed: 1}
	train, test, err := data.Generate()
	if err != nil {
		b.Fatal(err)
	}
	j := job.Default()
	j.Loss, j.Data = "sparse_categorical_crossentropy", data
	j.Model = []job.Section{nn.NewDense(512, "relu"), nn.NewDense(256, "relu"), nn.NewDense(10, "softmax")}
	adam, _ := optim.NewSpec("adam")
	j.Optimizer, j.Batch = adam, job.Batch{Global: 384, Microbatch: 8}
	t, err := NewTask(j, train, test)
	if err != nil {
		b.Fatal(err)
	}
	s, e, copied := t.Start(), NewEngine(t, 1), t.blank()
	share := shard.Range{Hi: t.Plan.Microbatches(0) / 3}
	timed := func(sum *time.Duration, f func()) {
		begun := time.Now()
		f()
		*sum += time.Since(begun)
	}
	var step, watch, audit time.Duration
	for b.Loop() {
		a := t.attempt(s)
		timed(&step, func() {
			if _, err := e.Compute(context.Background(), a, share, s.params, nil); err != nil {
				b.Fatal(err)
			}
			u := t.Optimizer.Begin(t.rate(s, 0), s.params, e.workers[0].grads, s.slots, 0)
			inTurn(u.Len(), u.Do)
		})
		timed(&watch, func() { s.watch(inTurn) })
		a.Probes, e.probes = []int{share.Hi}, make([]uint64, 1) // of the next rank
		timed(&audit, func() {
			if err := e.workers[0].Probe(context.Background(), a, share.Hi, s.params); err != nil {
				b.Fatal(err)
			}
			s.audit(inTurn)
			copied.copyFrom(s, inTurn)
			copied.witness(inTurn)
		})
	}
	n := &Node{stepTime: step / time.Duration(b.N), auditTook: audit / time.Duration(b.N)}
	every := n.auditEvery()
	b.ReportMetric(float64(n.stepTime.Microseconds()), "step-µs")
	b.ReportMetric(100*watch.Seconds()/step.Seconds(), "watch-%")
	b.ReportMetric(float64(n.auditTook.Microseconds()), "audit-µs")
	b.ReportMetric(float64(every), "steps/audit")
	b.ReportMetric(100*(watch.Seconds()+audit.Seconds()/float64(every))/step.Seconds(), "all-%")
}
