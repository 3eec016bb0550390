package train

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dlnode/dlnode/cluster"
)

func TestMain(m *testing.M) {
	// memberlist's Shutdown leaves a probe that is under way to its time-out.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probe"))
}

// fleet runs nodes over real sockets of this process.
type fleet struct {
	t    *testing.T
	task *Task
	dir  string
	mu   sync.Mutex
	wg   sync.WaitGroup
	out  map[string]outcome
	said []string
	seed chan string // gossip address of the first node
}

type outcome struct {
	Result
	err error
}

func newFleet(t *testing.T, task *Task) *fleet {
	return &fleet{t: t, task: task, dir: t.TempDir(), out: map[string]outcome{}, seed: make(chan string, 1)}
}

func (f *fleet) config(name, join string, expect int) Config {
	c := Config{
		Task:   f.task,
		Gossip: cluster.Config{Name: name, Label: f.t.Name(), UpdateEvery: 20 * time.Millisecond, ProbeInterval: 100 * time.Millisecond},
		Dir:    filepath.Join(f.dir, name), Checkpoints: filepath.Join(f.dir, name, "checkpoints"), Threads: 2, Expect: expect,
	}
	if join != "" {
		c.Gossip.Join = []string{join}
	}
	return c
}

func (f *fleet) start(ctx context.Context, c Config) {
	first := len(c.Gossip.Join) == 0
	c.Line = func(l Line) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if l.Ready != nil && first {
			f.seed <- l.Ready.Gossip
		}
		if l.Event != nil {
			f.said = append(f.said, l.Event.Text)
		}
	}
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		r, err := Run(ctx, c)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.out[c.Gossip.Name] = outcome{r, err}
	}()
}

func (f *fleet) heard(part string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Contains(strings.Join(f.said, "\n"), part)
}

func fitted(t *testing.T, task *Task) string {
	fit, err := Fit(context.Background(), task, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(fit.State[:])
}

func TestNodesOverSocketsEndInTheStateOfOne(t *testing.T) {
	task := simTask(t)
	want := fitted(t, task)
	f := newFleet(t, task)
	f.start(context.Background(), f.config("a", "", 3))
	seed := <-f.seed
	f.start(context.Background(), f.config("b", seed, 3))
	f.start(context.Background(), f.config("c", seed, 3))
	f.wg.Wait()
	for name, o := range f.out {
		if o.err != nil || !o.Finished || o.StateSHA256 != want {
			t.Errorf("%s: finished %v, state %s, error %v; want state %s", name, o.Finished, o.StateSHA256, o.err, want)
		}
	}
	if !f.heard("3 nodes (a, b, c)") {
		t.Errorf("the three never trained together: %q", f.said)
	}
}

func TestALeaverGoesInOrderAndResumesWhereItWas(t *testing.T) {
	task := simTask(t)
	want := fitted(t, task)
	f := newFleet(t, task)
	ctx, leave := context.WithCancel(context.Background())
	leave() // asked to go at once: at most one step is made
	f.start(ctx, f.config("a", "", 0))
	f.wg.Wait()
	<-f.seed
	if o := f.out["a"]; o.err != nil || o.Finished {
		t.Fatalf("left with %+v", o)
	}
	f.start(context.Background(), f.config("a", "", 0))
	f.wg.Wait()
	if o := f.out["a"]; o.err != nil || !o.Finished || o.StateSHA256 != want {
		t.Errorf("resumed: %+v, want state %s", o, want)
	}
	f.start(context.Background(), f.config("a", "", 0))
	<-f.seed
	f.wg.Wait()
	if o := f.out["a"]; o.err != nil || o.StateSHA256 != want {
		t.Errorf("a finished run directory: %+v, want an end without error and state %s", o, want)
	}
}

func TestAnotherJobInTheSameDirectoryIsRefused(t *testing.T) {
	task := simTask(t)
	f := newFleet(t, task)
	f.start(context.Background(), f.config("a", "", 0))
	f.wg.Wait()
	<-f.seed
	j := *task.Job
	j.Seed++
	other, err := NewTask(&j, task.Train, task.Test)
	if err != nil {
		t.Fatal(err)
	}
	c := f.config("a", "", 0)
	c.Task = other
	_, err = Run(context.Background(), c)
	var e *OtherTrajectoryError
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "seed: 8 here, 7 there") {
		t.Errorf("got %v", err)
	}
}

func TestAStrangerIsToldInWhatItDiffers(t *testing.T) {
	task := simTask(t)
	f := newFleet(t, task)
	long, leave := context.WithCancel(context.Background())
	c := f.config("a", "", 0)
	c.MinNodes = 2 // waits, and so is there
	f.start(long, c)
	seed := <-f.seed
	j := *task.Job
	j.Epochs++
	other, err := NewTask(&j, task.Train, task.Test)
	if err != nil {
		t.Fatal(err)
	}
	c = f.config("b", seed, 0)
	c.Task = other
	_, err = Run(context.Background(), c)
	var e *StrangerError
	if !errors.As(err, &e) || !strings.Contains(err.Error(), fmt.Sprintf("epochs: %d here, %d there", j.Epochs, task.Job.Epochs)) {
		t.Errorf("got %v", err)
	}
	leave()
	f.wg.Wait()
}

func TestATakenPortIsNamed(t *testing.T) {
	task := simTask(t)
	f := newFleet(t, task)
	long, leave := context.WithCancel(context.Background())
	defer f.wg.Wait()
	defer leave()
	c := f.config("a", "", 0)
	c.MinNodes = 2
	f.start(long, c)
	taken := <-f.seed
	c = f.config("b", "", 0)
	c.GRPC = taken
	if _, err := Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), "cannot listen on "+taken) {
		t.Errorf("gRPC: %v", err)
	}
	c = f.config("b", "", 0)
	c.Gossip.Bind = taken
	if _, err := Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("gossip: %v", err)
	}
}

func TestADamagedCheckpointIsPassedOver(t *testing.T) {
	task := simTask(t)
	want := fitted(t, task)
	f := newFleet(t, task)
	f.start(context.Background(), f.config("a", "", 0))
	f.wg.Wait()
	<-f.seed
	newest := f.out["a"].Checkpoint
	if err := os.Truncate(filepath.Join(newest, "model.safetensors"), 10); err != nil {
		t.Fatal(err)
	}
	f.start(context.Background(), f.config("a", "", 0))
	f.wg.Wait()
	<-f.seed
	if o := f.out["a"]; o.err != nil || o.StateSHA256 != want {
		t.Errorf("%+v, want state %s", o, want)
	}
	b, err := os.ReadFile(filepath.Join(f.dir, "a", "journal.jsonl"))
	if err != nil || !strings.Contains(string(b), `"kind":"damaged"`) {
		t.Errorf("the journal does not tell of the damage: %v", err)
	}
}
