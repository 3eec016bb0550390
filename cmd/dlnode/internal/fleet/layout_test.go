package fleet

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlnode/dlnode/train"
)

func TestTheRosterKnowsTheNewestProcessOfEachNode(t *testing.T) {
	dir := Layout(t.TempDir())
	r := Roster{PID: 5, Job: "mnist", Started: time.Unix(1000, 0).UTC()}
	r.put(train.Ready{Node: "node-2", PID: 12})
	r.put(train.Ready{Node: "node-1", PID: 11})
	r.put(train.Ready{Node: "node-3", PID: 13})
	r.put(train.Ready{Node: "node-2", PID: 22})
	r.drop("node-3")
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRoster(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := r
	want.Nodes = []train.Ready{{Node: "node-1", PID: 11}, {Node: "node-2", PID: 22}}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTheNewestFleetIsFound(t *testing.T) {
	runs := t.TempDir()
	if _, err := Newest(runs); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no fleet: %v, want fs.ErrNotExist", err)
	}
	for i, name := range []string{"b", "c", "a"} {
		dir := Layout(filepath.Join(runs, name))
		if err := os.Mkdir(string(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := (&Roster{}).write(dir); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000*(i+1)), 0)
		if err := os.Chtimes(dir.roster(), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Newest(runs); err != nil || filepath.Base(string(got)) != "a" {
		t.Errorf("got %s, %v, want a", got, err)
	}
}

func TestADamagedRosterNamesItsFile(t *testing.T) {
	dir := Layout(t.TempDir())
	if err := os.WriteFile(dir.roster(), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRoster(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
