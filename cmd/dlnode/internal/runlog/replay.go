package runlog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dlnode/dlnode/train"
)

// Replay is a part of a run that is computed once more.
type Replay struct {
	Log   *Log
	Run   *train.Recomputer
	Known map[uint64][32]byte // digests of checkpoints, by transition
	Tell  func(step uint64)   // of each update that is done; nil for nobody

	Compared   int               // transitions that some journal tells of
	Unrecorded int               // transitions that none does
	Met        []uint64          // transitions of the checkpoints that came out to the byte
	Last       train.Recomputed  // update
	Heard      map[string]uint64 // transitions that a node's word agreed in
}

// Difference is the first transition that comes out otherwise than the run has it.
type Difference struct {
	Step  uint64   `json:"step"`
	Lines []string `json:"lines"` // for people: the digests, and who computed what
}

// To goes over transitions until an update is done, the first difference, or the end
// of the run.
func (p *Replay) To(ctx context.Context, step uint64) (*Difference, error) {
	if p.Heard == nil {
		p.Heard = map[string]uint64{}
	}
	for !p.Run.Done() && p.Run.Step() < step {
		got, err := p.Run.Compute(ctx)
		if err != nil {
			return nil, fmt.Errorf("recomputing the transition after step %d: %w", p.Run.Step(), err)
		}
		words := p.Log.steps[got.Transition]
		diff, err := p.compare(ctx, got, words)
		if diff != nil || err != nil {
			return diff, err
		}
		if p.count(words); got.Kind == train.Update {
			p.Last = got
		}
		p.Run.Commit()
		if p.Tell != nil && got.Kind == train.Update {
			p.Tell(got.Step)
		}
		if diff := p.arrive(got); diff != nil {
			return diff, nil
		}
	}
	return nil, nil
}

func (p *Replay) count(words []Word) {
	if len(words) == 0 {
		p.Unrecorded++
		return
	}
	p.Compared++
	for _, w := range words {
		p.Heard[w.Node]++
	}
}

// compare holds what the nodes have recorded of a transition against what it is.
func (p *Replay) compare(ctx context.Context, got train.Recomputed, words []Word) (*Difference, error) {
	figures := []struct {
		name string
		of   func(Word) string
		want string
	}{
		{"state before", func(w Word) string { return w.Watch }, got.Watch},
		{"samples", func(w Word) string { return strconv.FormatUint(w.Samples, 10) }, strconv.FormatUint(got.Samples, 10)},
		{"gradient", func(w Word) string { return w.Gradient }, got.Gradient},
	}
	d := &Difference{Step: got.Step}
	d.say("%s (transition %d) differs", title(got), got.Transition)
	same := true
	for _, f := range figures {
		if by := tellers(words, f.of); len(by) > 1 || len(by) == 1 && by[f.want] == nil {
			same = false
			d.say("  %-13s %s; recomputed %s", f.name, recorded(by), f.want)
		}
	}
	if same && addUp(words) {
		return nil, nil
	}
	if got.Gradient == "" {
		return d, nil
	}
	return d, p.blame(ctx, d, got, words)
}

func title(got train.Recomputed) string {
	if got.Kind == train.Update {
		return fmt.Sprintf("step %d", got.Step)
	}
	return fmt.Sprintf("the %s after step %d", got.Kind, got.Step)
}

// tellers sorts nodes by what they say; of records without it, by nothing.
func tellers(words []Word, of func(Word) string) map[string][]string {
	by := map[string][]string{}
	for _, w := range words {
		if x := of(w); x != "" {
			by[x] = append(by[x], w.Node)
		}
	}
	return by
}

func recorded(by map[string][]string) string {
	var parts []string
	for _, x := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("recorded %s by %s", x, strings.Join(slices.Compact(by[x]), ", ")))
	}
	return strings.Join(parts, ", ")
}

// attempts sorts the records of a transition by the group that made it: there are
// several where a network was cut, or a run began again at an older checkpoint.
func attempts(words []Word) map[string][]Word {
	by := map[string][]Word{}
	for _, w := range words {
		key := fmt.Sprint(w.Generation, w.World)
		if w.World == 1 {
			key += w.Node
		}
		by[key] = append(by[key], w)
	}
	return by
}

// addUp tells whether the parts of all nodes add up to the gradient that they
// recorded, where all of them are here.
func addUp(words []Word) bool {
	for _, ws := range attempts(words) {
		if len(ws) != ws[0].World || ws[0].Gradient == "" {
			continue
		}
		var sum uint64
		for _, w := range ws {
			n, err := strconv.ParseUint(w.Own, 16, 64)
			if err != nil {
				return false
			}
			sum += n
		}
		if fmt.Sprintf("%016x", sum) != ws[0].Gradient {
			return false
		}
	}
	return true
}

// blame computes each node's part of a gradient anew and says whose differs.
func (p *Replay) blame(ctx context.Context, d *Difference, got train.Recomputed, words []Word) error {
	for _, key := range slices.Sorted(maps.Keys(attempts(words))) {
		ws := attempts(words)[key]
		slices.SortStableFunc(ws, func(a, b Word) int { return a.Lo - b.Lo })
		d.say("  generation %d, %s:", ws[0].Generation, plural(ws[0].World, "node"))
		at := 0
		for _, w := range ws {
			if w.Lo > at {
				d.say("    microbatches [%d, %d) are in no journal", at, w.Lo)
			}
			at = max(at, w.Hi)
			if err := p.part(ctx, d, got, w); err != nil {
				return err
			}
		}
		if at < got.Microbatches {
			d.say("    microbatches [%d, %d) are in no journal", at, got.Microbatches)
		}
	}
	return nil
}

func (p *Replay) part(ctx context.Context, d *Difference, got train.Recomputed, w Word) error {
	switch {
	case w.Lo < 0 || w.Hi < w.Lo || w.Hi > got.Microbatches:
		d.say("    %s says microbatches [%d, %d), of %d: that can't be", w.Node, w.Lo, w.Hi, got.Microbatches)
		return nil
	case w.Own == "":
		d.say("    %s, microbatches [%d, %d): its part is not in its journal", w.Node, w.Lo, w.Hi)
		return nil
	}
	part, err := p.Run.Part(ctx, w.Lo, w.Hi)
	if err != nil {
		return fmt.Errorf("the part of %s: %w", w.Node, err)
	}
	verdict := "as recomputed"
	if part != w.Own {
		verdict = "recomputed " + part + ": this is where it went wrong"
	}
	d.say("    %s, microbatches [%d, %d): part %s, %s", w.Node, w.Lo, w.Hi, w.Own, verdict)
	return nil
}

// arrive compares the state after a transition with a checkpoint of it, and with
// what the records of the next one say.
func (p *Replay) arrive(got train.Recomputed) *Difference {
	at := p.Run.Transition()
	d := &Difference{Step: got.Step}
	if want, ok := p.Known[at]; ok {
		if here := p.Run.Digest(); here != want {
			d.say("the state after %s differs: its checkpoint has SHA-256 %x; recomputed %x", title(got), want, here)
			return d
		}
		p.Met = append(p.Met, at)
	}
	by := tellers(p.Log.steps[at+1], func(w Word) string { return w.Watch })
	if watch := p.Run.Watch(); len(by) > 1 || len(by) == 1 && by[watch] == nil {
		d.say("the state after %s differs, though its gradient does not", title(got))
		d.say("  state after   %s; recomputed %s", recorded(by), watch)
		return d
	}
	return nil
}

func (d *Difference) say(format string, args ...any) {
	d.Lines = append(d.Lines, fmt.Sprintf(format, args...))
}
