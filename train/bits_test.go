package train

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/testjobs"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/shard"
)

var record = flag.Bool("record", false, "record anew what the test jobs end in; needs another numerics version")

// bitsFile has a line for each test job: its name, the numerics version, and the
// SHA-256 of the state that it ends in.
const bitsFile = "testdata/bits.txt"

// testTask makes the task of a test job.
func testTask(t testing.TB, f testjobs.File) *Task {
	t.Helper()
	j, err := job.Parse(f.Name, f.Text)
	if err != nil {
		t.Fatal(err)
	}
	train, test, err := OpenData(context.Background(), j, dataset.Env{})
	if err != nil {
		t.Fatal(err)
	}
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	return task
}

func testJobs() []testjobs.File { return slices.Concat(testjobs.Layers(), testjobs.Whole()) }

// Line 1 of the promise: one SHA-256 for each kind of layer and for whole jobs,
// whatever the instruction set and the number of threads, and the one that stands
// in a file beside the numerics version. Where there is one instruction set alone
// (under an emulator of arm64, or in a build for GOAMD64=v3) the file is what
// joins it to the others. sim has the same over numbers of nodes.
func TestEveryTestJobEndsInTheRecordedBits(t *testing.T) {
	recorded := readBits(t)
	var lines bytes.Buffer
	for _, f := range testJobs() {
		t.Run(f.Name, func(t *testing.T) {
			got := everywhere(t, testTask(t, f), f.Name)
			fmt.Fprintf(&lines, "%s %d %s\n", f.Name, Numerics, got)
			if want := recorded[f.Name]; got != want && !*record {
				t.Errorf("ends in %s, recorded under numerics version %d is %q: raise the version if the bits are to change; of a new job, say -record", got, Numerics, want)
			}
		})
	}
	if *record {
		if err := os.WriteFile(bitsFile, lines.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// everywhere trains with every variant of the kernels, on 1, 2 and 4 threads, and
// returns the digest of the state that all of them end in.
func everywhere(t *testing.T, task *Task, name string) (first string) {
	t.Helper()
	defer restoreKernels(t)()
	for _, variant := range kernel.Variants() {
		if err := kernel.Use(variant); err != nil {
			t.Fatal(err)
		}
		for _, threads := range threadCounts() {
			got := fitOn(t, task, threads)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("%s: %s with %d threads ends in %s, %s with one in %s", name, variant, threads, got, kernel.Variants()[0], first)
			}
		}
	}
	return first
}

func threadCounts() []int {
	if testing.Short() {
		return []int{1}
	}
	return []int{1, 2, 4}
}

// restoreKernels returns a function that chooses the kernels of now again.
func restoreKernels(t *testing.T) func() {
	was := kernel.Name()
	return func() {
		if err := kernel.Use(was); err != nil {
			t.Error(err)
		}
	}
}

// fitOn trains with as many threads as processors, and returns the state's digest.
func fitOn(t *testing.T, task *Task, threads int) string {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
	fit, err := Fit(context.Background(), task, threads, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", fit.State)
}

// readBits reads the lines of this numerics version.
func readBits(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(bitsFile)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
		var name, digest string
		var numerics int
		if _, err := fmt.Sscan(in.Text(), &name, &numerics, &digest); err != nil {
			t.Fatalf("%s: %q: %v", bitsFile, in.Text(), err)
		}
		if numerics == Numerics {
			all[name] = digest
		}
	}
	return all
}

func TestNothingIsRecordedOfJobsThatAreGone(t *testing.T) {
	recorded := readBits(t)
	for _, f := range testJobs() {
		delete(recorded, f.Name)
	}
	for name := range recorded {
		t.Errorf("%s is recorded, but there is no such job", name)
	}
}

// What a job can say must be said by some test job, or its bits are promised and
// not looked at.
func TestTestJobsUseTheWholeVocabulary(t *testing.T) {
	seen := map[string]bool{}
	var text bytes.Buffer
	for _, f := range testJobs() {
		task := testTask(t, f)
		text.Write(task.canonical)
		see(seen, task.Job)
	}
	for _, initializer := range nn.Initializers() {
		seen[initializer] = strings.Contains(text.String(), `initializer":"`+initializer+`"`)
	}
	for _, name := range slices.Concat(nn.LayerKinds(), nn.Activations(), nn.Losses(), nn.Metrics(), nn.Initializers(), optim.Kinds(), optim.Schedules()) {
		if !seen[name] {
			t.Errorf("no test job uses %s", name)
		}
	}
}

// see marks what a job names.
func see(seen map[string]bool, j *job.Job) {
	seen[j.Loss], seen[j.Optimizer.Kind()] = true, true
	for _, m := range j.Metrics {
		seen[m] = true
	}
	text := string(j.Canonical())
	for _, schedule := range optim.Schedules() {
		seen[schedule] = seen[schedule] || strings.Contains(text, `"schedule":"`+schedule+`"`)
	}
	seen["constant"] = seen["constant"] || !strings.Contains(text, `"schedule"`) // a plain number
	for _, l := range j.Model {
		seeLayer(seen, l.(nn.LayerSpec))
	}
}

func seeLayer(seen map[string]bool, l nn.LayerSpec) {
	seen[l.Kind()] = true
	switch l := l.(type) {
	case *nn.Dense:
		seen[l.Activation] = true
	case *nn.Activation:
		seen[l.Function] = true
	}
	if c, ok := l.(nn.Container); ok {
		for _, p := range c.Parts() {
			for _, inner := range p.Layers {
				seeLayer(seen, inner)
			}
		}
	}
}

func TestAMicrobatchOfAnyTestJobAllocatesNothing(t *testing.T) {
	for _, f := range testJobs() {
		task := testTask(t, f)
		e, s := NewEngine(task, 1), task.Start()
		attempts := []*Attempt{task.attempt(s)}
		if task.Validation != nil {
			attempts = append(attempts, &Attempt{Kind: Evaluate, Scalar: s.EvalExps})
		}
		for _, a := range attempts {
			compute := func() Contribution {
				c, err := e.Compute(context.Background(), a, shard.Range{Hi: task.microbatches(a)}, s.params, nil)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			c := compute() // for the grids: of what does not fit a digest is told
			if exact.Raise(a.Scalar, c.Scalars.Seen()); a.Kind == Update {
				exact.Raise(a.Grad, c.Grad.Seen())
			}
			allocs := testing.AllocsPerRun(3, func() { compute() })
			if allocs != 0 {
				t.Errorf("%s, %s: %v allocations, want 0", f.Name, a.Kind, allocs)
			}
		}
	}
}
