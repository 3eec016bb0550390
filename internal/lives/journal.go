package lives

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/train"
)

// Life is what one process wrote into its journal.
type Life struct {
	Node    string
	Records []train.Record
}

// Read reads the journals of nodes, each in a directory of its name in dir. Flaws
// are lines that are not as they were written.
func Read(dir string, nodes []string) (all []Life, flaws []train.Flaw, err error) {
	for _, id := range nodes {
		path := filepath.Join(dir, id, train.JournalName)
		if _, err := os.Stat(path); os.IsNotExist(err) {
			continue // killed before it wrote anything
		}
		of, bad, err := readJournal(id, path)
		if err != nil {
			return nil, nil, err
		}
		all, flaws = append(all, of...), append(flaws, bad...)
	}
	return all, flaws, nil
}

// readJournal reads what each process of a node has written. A process that was
// killed may have left half a line at the end of its life.
func readJournal(id, path string) (all []Life, flaws []train.Flaw, err error) {
	j, err := train.ReadJournal(path)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range j.Records {
		if r.T == "open" || len(all) == 0 {
			all = append(all, Life{Node: id})
		}
		last := &all[len(all)-1]
		last.Records = append(last.Records, r)
	}
	return all, j.Flaws, nil
}

// Steps calls visit with each transition that the life completed.
func (l Life) Steps(visit func(train.Record)) {
	for _, r := range l.Records {
		if r.T == "step" {
			visit(r)
		}
	}
}

// Span is when the first and the last step of a run were completed.
func Span(all []Life) (first, last time.Time) {
	for _, l := range all {
		l.Steps(func(r train.Record) {
			if first.IsZero() || r.Time.Before(first) {
				first = r.Time
			}
			if r.Time.After(last) {
				last = r.Time
			}
		})
	}
	return first, last
}

// Forwards checks that no life ever went back, but where it tells that a gradient was
// proved wrong.
func Forwards(all []Life) (bad []string) {
	for _, l := range all {
		var last uint64
		for _, r := range l.Records {
			switch {
			case r.T == "event" && r.Kind == "recall":
				last = 0
			case r.T == "step":
				if r.Transition <= last {
					bad = append(bad, fmt.Sprintf("%s went back from transition %d to %d", l.Node, last, r.Transition))
				}
				last = r.Transition
			}
		}
	}
	return bad
}

// Complete checks that every transition of the run was completed somewhere, and
// with the same bits wherever it was.
func Complete(all []Life, transitions uint64) (bad []string) {
	watch := map[uint64]string{}
	for _, l := range all {
		l.Steps(func(r train.Record) {
			if w, ok := watch[r.Transition]; ok && w != r.Watch {
				bad = append(bad, fmt.Sprintf("%s has other bits at transition %d", l.Node, r.Transition))
			}
			watch[r.Transition] = r.Watch
		})
	}
	for t := uint64(1); t <= transitions; t++ {
		if _, ok := watch[t]; !ok {
			bad = append(bad, fmt.Sprintf("transition %d is in no journal", t))
		}
	}
	return bad
}

// attempt names one completed all-reduce: two halves of a run that have not met yet may
// walk the same steps.
type attempt struct {
	transition uint64
	view       string
}

// Shares checks that the ranks of a step computed disjoint runs of microbatches,
// and together all, where all of them lived to write it down. A step is of the view
// that the life has told last.
func Shares(all []Life, micro int) (bad []string) {
	ranks := map[attempt][]train.Record{}
	for _, l := range all {
		view := ""
		for _, r := range l.Records {
			switch {
			case r.T == "event" && r.View != "":
				view = r.View
			case r.T == "step" && r.Kind == string(train.Update):
				a := attempt{r.Transition, view}
				ranks[a] = append(ranks[a], r)
			}
		}
	}
	whole := 0
	for a, rs := range ranks {
		computed, at, overlap := 0, 0, false
		slices.SortFunc(rs, func(a, b train.Record) int { return a.Lo - b.Lo })
		for _, r := range rs {
			overlap = overlap || r.Hi > r.Lo && r.Lo < at
			at = max(at, r.Hi)
			computed += r.Hi - r.Lo
		}
		if overlap || computed > micro {
			bad = append(bad, fmt.Sprintf("transition %d, view %s: microbatches computed twice: %d of %d", a.transition, a.view, computed, micro))
		}
		if len(rs) == rs[0].World && computed == micro {
			whole++
		}
	}
	if whole == 0 {
		bad = append(bad, "no step shows all of its microbatches")
	}
	return bad
}

// ExactlyOnce checks that each epoch used as many samples as there are.
func ExactlyOnce(all []Life, samples int) (bad []string) {
	used := map[uint64]uint64{} // by transition
	ends := map[uint64]bool{}   // transitions that end an epoch
	for _, l := range all {
		l.Steps(func(r train.Record) {
			switch r.Kind {
			case string(train.Update):
				used[r.Transition] = r.Samples
			case string(train.Evaluate):
				ends[r.Transition] = true
			}
		})
	}
	var sum uint64
	for t := uint64(1); t <= uint64(len(used)+len(ends)); t++ {
		sum += used[t]
		if ends[t] {
			if sum != uint64(samples) {
				bad = append(bad, fmt.Sprintf("the epoch that ends with transition %d used %d samples, want %d", t, sum, samples))
			}
			sum = 0
		}
	}
	return bad
}

// Aftermath is what a fault cost the others.
type Aftermath struct {
	Known []time.Duration // until each of them knew
	Next  time.Duration   // until one of them completed a step without the victim
	OK    bool            // somebody lost something
}

// After finds what happened after victims were killed. A node tells, with the
// start of the new view, when it knew that the old one was over.
func After(all []Life, cut time.Time, victims ...string) (a Aftermath) {
	for _, l := range all {
		told, known, ok := l.Lost(cut, victims)
		if !ok {
			continue
		}
		a.Known = append(a.Known, known.Sub(cut))
		l.Steps(func(r train.Record) {
			if took := r.Time.Sub(cut); r.Time.After(cut) && r.Generation >= told.Generation && (!a.OK || took < a.Next) {
				a.Next, a.OK = took, true
			}
		})
	}
	return a
}

// Lost returns the first loss of one of some nodes that the life tells after a
// moment, and when it knew of it. Who began to live later lost nobody.
func (l Life) Lost(cut time.Time, victims []string) (told train.Record, known time.Time, ok bool) {
	if l.Records[0].Time.After(cut) {
		return train.Record{}, time.Time{}, false
	}
	for _, r := range l.Records {
		known = r.Time.Add(-time.Duration(r.Millis * float64(time.Millisecond)))
		who, _, _ := strings.Cut(r.About, " ") // "node-1 (coordinator)", "the ring"
		if r.T == "event" && r.Kind == "lost" && known.After(cut) && (who == "the" || slices.Contains(victims, who)) {
			return r, known, true
		}
	}
	return train.Record{}, time.Time{}, false
}

// Standstill is the longest time of a run in which nobody completed a step.
func Standstill(all []Life) (longest time.Duration) {
	var times []time.Time
	for _, l := range all {
		l.Steps(func(r train.Record) { times = append(times, r.Time) })
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i].Sub(times[i-1]))
	}
	return longest
}

// Pauses returns, for each change of view, how long nobody completed a step, by
// the kind of event that the new view was told with.
func Pauses(all []Life) map[string][]time.Duration {
	ends, begins := map[uint64]time.Time{}, map[uint64]time.Time{}
	kinds := map[uint64]string{}
	for _, l := range all {
		for _, r := range l.Records {
			switch {
			case r.T == "event" && slices.Contains([]string{"lost", "left", "joined"}, r.Kind):
				kinds[r.Generation] = r.Kind
			case r.T == "step":
				if b, ok := begins[r.Generation]; !ok || r.Time.Before(b) {
					begins[r.Generation] = r.Time
				}
				if r.Time.After(ends[r.Generation]) {
					ends[r.Generation] = r.Time
				}
			}
		}
	}
	out := map[string][]time.Duration{}
	last := time.Time{}
	for _, g := range slices.Sorted(maps.Keys(begins)) {
		if kind := kinds[g]; kind != "" && !last.IsZero() {
			out[kind] = append(out[kind], begins[g].Sub(last))
		}
		last = ends[g]
	}
	return out
}
