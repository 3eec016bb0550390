package train

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/shard"
)

// slowly is a data set on a slow disk, so that a run lasts longer than it takes a node
// to return.
type slowly struct{ dataset.Dataset }

func (d slowly) Read(i int, x, y []float32) (uint64, error) {
	time.Sleep(time.Millisecond)
	return d.Dataset.Read(i, x, y)
}

// longTask has some 400 steps of 7 ms with three nodes of two threads.
func longTask(t testing.TB) (slow, fast *Task) {
	t.Helper()
	j, train, test := smallJob(t)
	j.Batch, j.Epochs = job.Batch{Global: 40, Microbatch: 4}, 80
	var err error
	if slow, err = NewTask(j, slowly{train}, test); err == nil {
		fast, err = NewTask(j, train, test)
	}
	if err != nil {
		t.Fatal(err)
	}
	return slow, fast
}

// flipped runs three nodes, or fewer, in one of which a bit flips.
func flipped(t *testing.T, nodes int, odd string, flip string) *fleet {
	t.Helper()
	fl, err := ParseFlip(flip)
	if err != nil {
		t.Fatal(err)
	}
	slow, _ := longTask(t)
	f := newFleet(t, slow)
	var seed string
	for _, name := range []string{"a", "b", "c"}[:nodes] {
		c := f.config(name, seed, nodes)
		if name == odd {
			c.Flip = fl
		}
		f.start(context.Background(), c)
		if seed == "" {
			seed = <-f.seed
		}
	}
	f.wg.Wait()
	return f
}

func TestANodeInWhoseStateABitFlipsIsNamedReturnsAndFinishes(t *testing.T) {
	_, fast := longTask(t)
	want := fitted(t, fast)
	for i, what := range flipPlaces {
		evidence := map[bool]string{false: "the state of %s differs from that of 2 others", true: "%s compute"}[strings.HasPrefix(what, "gradient")]
		odd := []string{"a", "c"}[i%2] // the one whom all look for, or another
		t.Run(what+" of "+odd, func(t *testing.T) {
			t.Parallel()
			f := flipped(t, 3, odd, what+"@20")
			for name, o := range f.out {
				if o.err != nil || !o.Finished || o.StateSHA256 != want {
					t.Errorf("%s: finished %v, state %s, error %v; want state %s", name, o.Finished, o.StateSHA256, o.err, want)
				}
			}
			for _, words := range []string{fmt.Sprintf(evidence, odd), odd + " expelled at step", "it starts anew, for the 1. of 3 times", odd + " joined at step"} {
				if !f.heard(words) {
					t.Errorf("nobody says %q in:\n%s", words, strings.Join(f.said, "\n"))
				}
			}
		})
	}
}

func TestOfTwoNodesNobodyKnowsWhoIsRight(t *testing.T) {
	f := flipped(t, 2, "b", "parameter@20")
	for name, o := range f.out {
		if !errors.As(o.err, new(*FatalError)) || !strings.Contains(o.err.Error(), "nobody can know who is right") {
			t.Errorf("%s ends with %v", name, o.err)
		}
	}
}

func TestANodeThatIsAtFaultInEachLifeEndsWithTheEvidence(t *testing.T) {
	_, fast := longTask(t)
	want := fitted(t, fast)
	f := flipped(t, 3, "b", "parameter@40x9")
	for name, o := range f.out {
		expelled := (*ExpelledError)(nil)
		switch {
		case name == "b" && (!errors.As(o.err, &expelled) || !expelled.Final || !strings.Contains(expelled.Evidence, "b differs")):
			t.Errorf("b ends with %v", o.err)
		case name != "b" && (o.err != nil || o.StateSHA256 != want):
			t.Errorf("%s: error %v, state %s, want %s", name, o.err, o.StateSHA256, want)
		}
	}
}

// A rank that has nothing to compute in a step may have computed wrongly in those since the
// last audit: it is probed like any other.
func TestARankWithoutAShareIsProbed(t *testing.T) {
	task := simTask(t)
	a := task.attempt(task.Start())
	draws := make([][]int, 3)
	for rank := range draws {
		g := &generation{rank: rank, view: ranks(3), start: view.Start{Donors: []int{0, 1}}, pace: shard.NewPace(3)}
		if r := g.deal(task.microbatches(a), 0)[2]; r.Len() != 0 {
			t.Fatalf("who copies computes %v", r)
		}
		draws[rank] = g.draw(task, a)
	}
	for rank := range draws {
		own, next := draws[rank][0], draws[(rank+1)%3][0]
		if !slices.Contains(draws[rank], next) {
			t.Errorf("rank %d tells of %v, the next one of %d", rank, draws[rank], next)
		}
		if own < 0 || own >= task.microbatches(a) {
			t.Errorf("rank %d tells of microbatch %d of %d", rank, own, task.microbatches(a))
		}
	}
}
