package train

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
)

// fromPeers is the configuration of a node that has nothing but the job.
func (f *fleet) fromPeers(name, join string, expect int, j *job.Job) Config {
	c := f.config(name, join, expect)
	c.Task = nil
	keep := filepath.Join(c.Dir, "data")
	c.FromPeers = &FromPeers{
		Job: j, Kept: dataset.KeptFromPeers(keep, j.Data.(dataset.Spec)),
		Open: func(ctx context.Context, others dataset.Source) (*Task, error) {
			train, test, err := OpenData(ctx, j, dataset.Env{Peers: others, KeepDir: keep, KeepBytes: 1 << 20})
			if err != nil {
				return nil, err
			}
			f.t.Cleanup(func() { closeAll(f.t, train, test) })
			return NewTask(j, train, test)
		},
	}
	return c
}

func closeAll(t *testing.T, all ...dataset.Dataset) {
	for _, d := range all {
		if c, ok := d.(interface{ Close() error }); ok {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestNodesWithNothingButTheJobEndInTheStateOfOne(t *testing.T) {
	task := simTask(t)
	want := fitted(t, task)
	f := newFleet(t, task)
	f.start(context.Background(), f.config("a", "", 3))
	seed := <-f.seed
	f.start(context.Background(), f.fromPeers("b", seed, 3, task.Job))
	f.start(context.Background(), f.fromPeers("c", seed, 3, task.Job))
	f.wg.Wait()
	for name, o := range f.out {
		if o.err != nil || !o.Finished || o.StateSHA256 != want {
			t.Errorf("%s: finished %v, state %s, error %v; want state %s", name, o.Finished, o.StateSHA256, o.err, want)
		}
	}
	if !f.heard("3 nodes (a, b, c)") || !f.heard("a has the data") && !f.heard("b has the data") && !f.heard("c has the data") {
		t.Errorf("the three never trained together: %q", f.said)
	}
}

func TestANodeWithAnotherJobIsRefusedBeforeItGetsAnyData(t *testing.T) {
	task := simTask(t)
	f := newFleet(t, task)
	ctx, leave := context.WithCancel(context.Background())
	a := f.config("a", "", 0)
	a.MinNodes = 2 // it waits, and is there
	f.start(ctx, a)
	seed := <-f.seed
	j := *task.Job
	j.Seed++
	c := f.fromPeers("b", seed, 0, &j)
	c.FromPeers.Open = func(context.Context, dataset.Source) (*Task, error) {
		t.Error("it has got as far as its data")
		return nil, context.Canceled
	}
	_, err := Run(context.Background(), c)
	stranger := (*StrangerError)(nil)
	if !errors.As(err, &stranger) || !strings.Contains(err.Error(), "seed") {
		t.Errorf("got %v, want the difference in the seed", err)
	}
	leave()
	f.wg.Wait()
}

func TestANodeThatFindsNoDataLeavesInOrder(t *testing.T) {
	task := simTask(t)
	f := newFleet(t, task)
	ctx, leave := context.WithCancel(context.Background())
	c := f.fromPeers("b", "", 0, task.Job)
	leave()
	r, err := Run(ctx, c)
	if err != nil || r.Finished || r.Reason != errLeft.Error() {
		t.Errorf("%+v, %v", r, err)
	}
}
