package train

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/dataset"
)

// called is a data set whose classes have names.
type called struct {
	dataset.Dataset
	names []string
}

func (c called) Info() dataset.Info {
	info := c.Dataset.Info()
	info.ClassNames = c.names
	return info
}

// namedTask is simTask with names for its classes, forked from a snapshot if there
// is one.
func namedTask(t testing.TB, from *checkpoint.Snapshot, names ...string) *Task {
	t.Helper()
	plain := simTask(t)
	train, test, err := plain.Job.Data.(*dataset.Synthetic).Generate()
	if err != nil {
		t.Fatal(err)
	}
	task, err := newTask(plain.Job, called{train, names}, called{test, names}, from)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// Two nodes whose checkpoints would differ by a name may not train together.
func TestWhatTheDataMeanIsPartOfTheTrajectory(t *testing.T) {
	none, abc, xyz := simTask(t), namedTask(t, nil, "a", "b", "c"), namedTask(t, nil, "x", "y", "z")
	if none.Trajectory == abc.Trajectory || abc.Trajectory == xyz.Trajectory {
		t.Error("names of classes make no other trajectory")
	}
	if abc.Trajectory != namedTask(t, nil, "a", "b", "c").Trajectory {
		t.Error("the same names make two trajectories")
	}
	diff := abc.Identity().Differences("here", "there", xyz.Identity())
	if len(diff) != 1 || !strings.HasPrefix(diff[0], "data: names of classes, or how raw input becomes numbers: ") {
		t.Errorf("told apart by %q", diff)
	}
	// And they change nothing but that.
	one, err := Fit(t.Context(), none, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Fit(t.Context(), abc, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if one.Model != other.Model {
		t.Errorf("the model is %x with names and %x without", other.Model, one.Model)
	}
}

func TestEveryCheckpointSaysWhatTheDataMean(t *testing.T) {
	task := namedTask(t, nil, "a", "b", "c")
	want := task.meaning
	if len(want) == 0 {
		t.Fatal("the task tells nothing")
	}
	f := newFleet(t, task)
	f.start(context.Background(), f.config("a", "", 2))
	f.start(context.Background(), f.config("b", <-f.seed, 2))
	f.wg.Wait()
	files, err := filepath.Glob(filepath.Join(f.dir, "*", "checkpoints", "*", "*", "data.json"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, name := range files {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s holds %s, want %s; %v", name, got, want, err)
		}
	}
}

// A joiner makes it of its own data, which are those of the others by T; a fork has
// data of its own.
func TestACopiedOrForkedStateSaysWhatItsDataMean(t *testing.T) {
	task := namedTask(t, nil, "a", "b", "c")
	sent, err := checkpoint.Unmarshal(checkpoint.Marshal(task.snapshot(task.start)))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := task.restore(sent)
	if err != nil {
		t.Fatal(err)
	}
	if task.digest(copied) != checkpoint.Digest(sent) || !bytes.Equal(sent.Data, task.meaning) {
		t.Errorf("the copy holds %s, want %s", sent.Data, task.meaning)
	}
	fork := namedTask(t, sent, "x", "y", "z")
	if got := fork.snapshot(fork.start).Data; !bytes.Contains(got, []byte(`"x"`)) || bytes.Contains(got, []byte(`"a"`)) {
		t.Errorf("the fork holds %s", got)
	}
	if fork.startDigest == task.startDigest {
		t.Error("a fork to other classes starts from the same state")
	}
}

// A state from before data.json is one whose data tell nothing.
func TestADataSetWithNothingToTellHasTheStatesOfOld(t *testing.T) {
	task := simTask(t)
	if s := task.snapshot(task.start); s.Data != nil {
		t.Errorf("%s", s.Data)
	}
}
