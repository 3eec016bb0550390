package train

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/allreduce/packing"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/shard"
)

var packingTable = flag.Bool("packing", false, "pack the gradients of all examples and print the table of docs/packing.md; takes minutes, so add -timeout 0")

// packed is what the all-reduce of one step takes, packed, in bytes an element.
type packed struct{ reduce, gather float64 }

// ofFloat32 compares with a ring that carries float32 both ways.
func (p packed) ofFloat32() float64 { return (p.reduce + p.gather) / (4 + 4) }

// Real gradients on real data: how many bytes a ring carries once they are packed. The
// total of what was packed and added at each hop is that of the plain sums.
func TestPackedGradientsTakeFewBytes(t *testing.T) {
	cases := []struct {
		example       string
		global, micro int
		steps         []uint64
		most          float64 // of a ring of float32
	}{
		{"mnist-mlp", 128, 32, []uint64{5, 50, 500}, 1.15},
		{"mnist-mlp", 128, 8, []uint64{5, 50, 500}, 1.15},
		{"mnist-cnn", 128, 32, []uint64{5, 50, 250}, 1.15},
		{"cats-vs-dogs", 20, 5, []uint64{5, 50, 100}, 1.15},
		{"imdb-lstm", 32, 8, []uint64{5, 50, 250}, 0.25},
		{"imdb-lstm", 128, 32, []uint64{5, 50, 150}, 0.45},
	}
	if !*packingTable {
		cases = cases[:1]
		cases[0].steps = cases[0].steps[:1]
	}
	cache := t.TempDir()
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s-%d-%d", c.example, c.global, c.micro), func(t *testing.T) {
			task := exampleTask(t, c.example, cache, c.global, c.micro)
			whileTraining(t, task, c.steps, func(e Compute) {
				for _, world := range []int{2, 4, 8} {
					if world > task.Plan.MaxMicrobatches() {
						continue
					}
					p := packRing(t, task, e, world)
					if *packingTable {
						fmt.Printf("| %s | %d | %d | %d | %d | %.2f | %.2f | %.2f |\n",
							c.example, c.global, c.micro, world, e.Attempt.Step, p.reduce, p.gather, p.ofFloat32())
					}
					if p.ofFloat32() > c.most {
						t.Errorf("step %d, %d ranks: %.3f + %.3f bytes an element, %.2f times those of float32, want at most %.2f",
							e.Attempt.Step, world, p.reduce, p.gather, p.ofFloat32(), c.most)
					}
				}
			})
		})
	}
}

// exampleTask is one of examples/ with another batch.
func exampleTask(t *testing.T, name, cache string, global, micro int) *Task {
	t.Helper()
	dir := os.Getenv("DLNODE_TEST_DATA")
	j, err := job.Load(filepath.Join("..", "examples", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	env, file := dataset.Env{CacheDir: cache, Offline: true}, ""
	switch data := j.Data.(type) {
	case *dataset.MNIST:
		env.CacheDir, file = dir, filepath.Join(dir, "mnist")
	case *dataset.IMDb:
		file = filepath.Join(dir, "aclImdb_v1_labelled.tar.gz")
		data.Path = file
	case *dataset.CatsVsDogs:
		file = filepath.Join(dir, "dogs-vs-cats-2000.tar")
		data.Path = file
	}
	if _, err := os.Stat(file); dir == "" || err != nil {
		t.Skipf("no data of %s in DLNODE_TEST_DATA", name)
	}
	train, test, err := dataset.Open(t.Context(), j.Data, env)
	if err != nil {
		t.Fatal(err)
	}
	j.Batch.Global, j.Batch.Microbatch = global, micro
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// whileTraining shows what a node alone computes in the given steps, the last of which
// is the greatest: of an attempt that is repeated, each one.
func whileTraining(t *testing.T, task *Task, steps []uint64, show func(e Compute)) {
	t.Helper()
	f := newFitter(t.Context(), task, 2, nil)
	defer f.pool.close()
	for f.node.State().Step <= steps[len(steps)-1] {
		for _, e := range f.node.Take() {
			if c, ok := e.(Compute); ok && c.Attempt.Kind == Update && slices.Contains(steps, c.Attempt.Step) {
				show(c)
			}
			f.do(e)
		}
		if f.exit != nil {
			t.Fatalf("training ended at step %d: %v", f.node.State().Step, f.exit.Err)
		}
	}
}

// packRing carries an attempt's sums around a ring of so many ranks, segment by
// segment, each hop packed.
func packRing(t *testing.T, task *Task, e Compute, world int) packed {
	t.Helper()
	const segment = 32 << 10
	sums, bits := rankSums(t, task, e, world)
	n := len(sums[0])
	total, mean := make([]float64, n), make([]float32, n)
	var reduced, gathered int
	for c := range world {
		for lo, end := c*n/world, (c+1)*n/world; lo < end; lo += segment {
			hi := min(lo+segment, end)
			for hop := range world {
				own := slices.Clone(sums[(c+1+hop)%world][lo:hi])
				if hop > 0 {
					wire := packing.AppendInts(nil, total[lo:hi])
					reduced += len(wire)
					if err := packing.AddInts(own, wire); err != nil {
						t.Fatal(err)
					}
				}
				copy(total[lo:hi], own)
			}
			exact.Finish(mean[lo:hi], total[lo:hi], lo, task.windows, e.Attempt.Grad, bits, float64(task.Plan.Count(e.Attempt.Step)))
			gathered += (world - 1) * len(packing.AppendFloats(nil, mean[lo:hi]))
		}
	}
	for i := range total {
		want := 0.0
		for _, s := range sums {
			want += s[i]
		}
		if total[i] != want {
			t.Fatalf("element %d: the ring's total is %v, the sum %v", i, total[i], want)
		}
	}
	elements := float64(n * (world - 1))
	return packed{float64(reduced) / elements, float64(gathered) / elements}
}

// rankSums returns what each rank of a world would put into the ring.
func rankSums(t *testing.T, task *Task, e Compute, world int) (sums [][]float64, bits int) {
	t.Helper()
	engine := NewEngine(task, 1)
	for _, r := range shard.Assign(task.Plan.Microbatches(e.Attempt.Step), slices.Repeat([]shard.Speed{{Wave: 1, Threads: 1}}, world), 0) {
		c, err := engine.Compute(context.Background(), e.Attempt, r, e.Params, nil)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, slices.Clone(c.Grad.Acc()))
		bits = c.Grad.Bits()
	}
	return sums, bits
}
