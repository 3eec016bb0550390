// Package runlog reads what all nodes of a run have written into their journals,
// holds it against what the run's steps come to when they are computed once more,
// and makes one story of it.
package runlog

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/chart"
	"github.com/dlnode/dlnode/train"
)

// Log is the journals of a run, over all its nodes.
type Log struct {
	Dir   string
	Words []Word // by time
	Nodes []string
	Flaws []train.Flaw // lines that are not as they were written; Words has none of them
	Torn  int          // lines that a node, killed, did not end
	Old   int          // lines without checksums, of a program that wrote none
	Back  int          // steps, over all nodes, that were taken back: a gradient in them was proved wrong

	steps map[uint64][]Word // records of a transition, by node
}

// Word is what one node tells.
type Word struct {
	Node string
	train.Record
}

// Open reads a run directory: a node's own, or that of a launch. The error is
// fs.ErrNotExist where there is no journal.
func Open(dir string) (*Log, error) {
	paths, err := chart.Journals(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{Dir: dir, steps: map[uint64][]Word{}}
	for _, path := range paths {
		j, err := train.ReadJournal(path)
		if err != nil {
			return nil, err
		}
		l.add(j)
	}
	slices.SortStableFunc(l.Words, func(a, b Word) int { return a.Time.Compare(b.Time) })
	back := l.recalls()
	for _, w := range l.Words {
		if w.T == "step" && takenBack(back, w) {
			l.Back++
		} else if w.T == "step" {
			l.steps[w.Transition] = append(l.steps[w.Transition], w)
		}
	}
	for _, words := range l.steps {
		slices.SortStableFunc(words, func(a, b Word) int { return cmp.Compare(a.Node, b.Node) })
	}
	return l, nil
}

// takenBack tells that a step is in no state that came after: members of its
// generation, or a later one, went back to one before it, and computed it again.
func takenBack(recalls map[uint64]train.Record, w Word) bool {
	for generation, r := range recalls {
		if w.Generation <= generation && w.Step > r.Step && w.Time.Before(r.Time) {
			return true
		}
	}
	return false
}

// recalls lists by generation the events that tell to which step its members have
// gone back: to the last of those that they had.
func (l *Log) recalls() map[uint64]train.Record {
	all := map[uint64]train.Record{}
	for _, w := range l.Words {
		if old, is := all[w.Generation]; w.T == "event" && w.Kind == "recall" && (!is || w.Step > old.Step) {
			all[w.Generation] = w.Record
		}
	}
	return all
}

// add takes in the journal of a node, which is called as it says, or else as its
// directory.
func (l *Log) add(j *train.Journal) {
	node := filepath.Base(filepath.Dir(j.Path))
	for _, r := range j.Records {
		if r.T == "start" && r.Node != "" && !r.Flawed {
			node = r.Node
		}
	}
	l.Nodes = append(l.Nodes, node)
	l.Flaws = append(l.Flaws, j.Flaws...)
	l.Torn += len(j.Torn)
	l.Old += j.Old
	for _, r := range j.Records {
		if !r.Flawed {
			l.Words = append(l.Words, Word{node, r})
		}
	}
}

// Trajectories lists the trajectories that nodes began to train, in hex.
func (l *Log) Trajectories() (all []string) {
	for _, w := range l.Words {
		if w.T == "start" && !slices.Contains(all, w.Text) {
			all = append(all, w.Text)
		}
	}
	return all
}

// Steps lists the updates that some journal has a digest of, ascending.
func (l *Log) Steps() (all []uint64) {
	for _, words := range l.steps {
		if w := words[0]; w.Kind == string(train.Update) && (w.Gradient != "" || w.Watch != "") {
			all = append(all, w.Step)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// plural is a number of things in words.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
