package chart

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/train"
)

// Run is what the journals of a run directory tell of it, over all its nodes.
type Run struct {
	Name   string
	Epochs []Epoch // by number, those that ended
	Steps  []Step  // by time, each once
	Marks  []Mark  // by time
	Broken int     // lines of the journals that can't be read, as a process that is killed leaves half a one
	Flaws  []train.Flaw
}

// Epoch is what training came to in one epoch.
type Epoch struct {
	Number int    // from 1
	Step   uint64 // with which it ended
	LR     float64
	Values []train.Value // "loss", "accuracy", "val_loss", ...
}

// Step is an update, as the first node that completed it saw it.
type Step struct {
	At      time.Duration // see clock
	Step    uint64
	World   int
	Samples uint64
	Loss    float64 // NaN if the update was skipped
}

// Mark is something that happened to the nodes.
type Mark struct {
	At   time.Duration
	Kind string // "lost", "joined", "left"
}

// ReadRun reads a run directory: a node's own, or that of a launch, below which
// every node has one. The error is fs.ErrNotExist where there is no journal.
func ReadRun(dir string) (*Run, error) {
	paths, err := Journals(dir)
	if err != nil {
		return nil, err
	}
	r := &Run{Name: filepath.Base(filepath.Clean(dir))}
	var records []train.Record
	trajectories := map[string]string{} // and where they were found first
	for _, path := range paths {
		j, err := train.ReadJournal(path)
		if err != nil {
			return nil, err
		}
		r.Broken += len(j.Torn)
		r.Flaws = append(r.Flaws, j.Flaws...)
		for _, rec := range j.Records {
			if _, known := trajectories[rec.Text]; rec.T == "start" && !known {
				trajectories[rec.Text] = filepath.Dir(path)
			}
		}
		records = append(records, j.Records...)
	}
	if len(trajectories) > 1 {
		where := strings.Join(slices.Compact(slices.Sorted(maps.Values(trajectories))), " and ")
		return nil, fmt.Errorf("%s: the journals below it are of different jobs or data: draw %s beside each other", dir, where)
	}
	slices.SortStableFunc(records, func(a, b train.Record) int { return a.Time.Compare(b.Time) })
	r.take(records)
	return r, nil
}

// Journals lists the journals of a run directory. The error is fs.ErrNotExist where
// there is none.
func Journals(dir string) ([]string, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	var found []string
	for _, pattern := range []string{train.JournalName, filepath.Join("*", train.JournalName)} {
		some, err := filepath.Glob(filepath.Join(escape(dir), pattern))
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no %s in it, nor in a directory below: %w", dir, train.JournalName, os.ErrNotExist)
	}
	return found, nil
}

// escape makes a pattern that matches a path alone.
func escape(path string) string {
	var b []byte
	for i := range len(path) {
		if c := path[i]; c == '*' || c == '?' || c == '[' || c == '\\' && filepath.Separator != '\\' {
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// take sorts out records, which come by time.
func (r *Run) take(records []train.Record) {
	clock := clock{}
	seen := map[uint64]bool{} // transitions
	epochs := map[int]bool{}
	marks := map[Mark]bool{} // At is the generation
	for _, rec := range records {
		at := clock.at(rec)
		switch {
		case rec.T == "step" && rec.Kind == string(train.Update) && !seen[rec.Transition]:
			seen[rec.Transition] = true
			r.Steps = append(r.Steps, Step{at, rec.Step, rec.World, rec.Samples, number(rec.Loss)})
		case rec.T == "epoch" && !epochs[rec.Epoch]:
			epochs[rec.Epoch] = true
			r.Epochs = append(r.Epochs, Epoch{rec.Epoch, rec.Step, number(rec.LR), rec.Values})
		case rec.T == "event" && (rec.Kind == "lost" || rec.Kind == "joined" || rec.Kind == "left"):
			if once := (Mark{time.Duration(rec.Generation), rec.Kind}); !marks[once] {
				marks[once] = true
				r.Marks = append(r.Marks, Mark{at, rec.Kind})
			}
		}
	}
	slices.SortStableFunc(r.Epochs, func(a, b Epoch) int { return cmp.Compare(a.Number, b.Number) })
}

// clock counts the time during which a run ran. It stands still from the last word
// of a run that was stopped until it is started again.
type clock struct {
	last time.Time
	ran  time.Duration
}

// stopped is how long nothing is heard before a start that ends a pause, and is no
// node that joins.
const stopped = 10 * time.Second

// at returns when a record was written.
func (c *clock) at(r train.Record) time.Duration {
	gap := r.Time.Sub(c.last)
	if !c.last.IsZero() && (r.T != "start" || gap < stopped) {
		c.ran += gap
	}
	c.last = r.Time
	return c.ran
}

// Took returns how long the run ran until its last step.
func (r *Run) Took() time.Duration {
	if len(r.Steps) == 0 {
		return 0
	}
	return r.Steps[len(r.Steps)-1].At
}
