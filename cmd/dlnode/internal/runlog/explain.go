package runlog

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dlnode/dlnode/train"
)

// Account is what became of a run: its story, what the changes of its nodes cost,
// and what each node did.
type Account struct {
	Trajectory  string
	Begin, End  time.Time
	Story       []Line
	Turns       []Turn
	Usual       time.Duration // between two transitions, in the median
	Updates     int           // different ones
	Checkpoints int           // different ones
	Repeats     Repeats
	Nodes       []Node
}

// Line is something that happened.
type Line struct {
	At   time.Time
	Text string
}

// Turn is a change of who trains together: from the last transition before it to
// the first after.
type Turn struct {
	At    time.Time // of the last transition before
	What  string
	Known time.Duration // until those who go on knew that they have to, in the dark about whoever was lost; 0 where it was no loss
	Stood time.Duration // until the next transition
	Again int           // transitions that were computed once more, as nobody had them any more, or two halves went apart
	Fault bool
}

// Repeats counts attempts that were made again, over the different transitions.
type Repeats struct{ Exponents, Nonfinite, Doubted int }

// Node is what a node's journal comes to.
type Node struct {
	Name         string
	Starts       int
	Deaths       int // processes that ended without a word, as far as others went on
	Updates      int
	Microbatches int
	Took, Waited time.Duration // of its steps; of that for samples
	Last         time.Time
}

// Explain makes one account of what all nodes tell.
func Explain(l *Log) *Account {
	a := &Account{}
	if len(l.Words) == 0 {
		return a
	}
	a.Begin, a.End = l.Words[0].Time, l.Words[len(l.Words)-1].Time
	if ts := l.Trajectories(); len(ts) > 0 {
		a.Trajectory = ts[0]
	}
	lives := livesOf(l)
	chapters := chaptersOf(l, lives)
	a.Story = story(l, lives, chapters)
	a.count(l, lives)
	a.turns(l, chapters)
	return a
}

// life is one process of a node.
type life struct {
	node        string
	first, last time.Time
	step        uint64 // with which it ended
	started     bool   // to train
	ended       bool   // in order
}

// livesOf lists the processes that have written, by the time that they began.
func livesOf(l *Log) (all []*life) {
	now := map[string]*life{}
	for _, w := range l.Words {
		p := now[w.Node]
		if p == nil || begins(w, p) {
			p = &life{node: w.Node, first: w.Time}
			now[w.Node] = p
			all = append(all, p)
		}
		p.started = p.started || w.T == "start"
		p.last, p.ended, p.step = w.Time, p.ended || w.T == "end", max(p.step, w.Step)
	}
	return all
}

// begins tells whether a word, after those of p, is of a new process. Older journals
// have no record of the opening.
func begins(w Word, p *life) bool { return w.T == "open" || w.T == "start" && p.started }

// died tells whether a process ended without a word, while others went on.
func (p *life) died(end time.Time) bool { return !p.ended && end.Sub(p.last) > deadAfter }

// deadAfter is how long a node, that writes every few milliseconds, must say nothing
// at the end of the journals to be taken for dead.
const deadAfter = 2 * time.Second

// chaptersOf numbers the times that a run was started with nobody left of before:
// generations count from 1 in each. It returns when each began.
func chaptersOf(l *Log, lives []*life) (begins []time.Time) {
	var until time.Time // last word of those that lived so far
	for _, p := range lives {
		if len(begins) == 0 || p.first.After(until) {
			begins = append(begins, p.first)
		}
		if p.last.After(until) {
			until = p.last
		}
	}
	return begins
}

// chapter is the one that a moment lies in.
func chapter(chapters []time.Time, at time.Time) int {
	n, _ := slices.BinarySearchFunc(chapters, at, time.Time.Compare)
	if n < len(chapters) && chapters[n].Equal(at) {
		n++
	}
	return n
}

// --- the story ---

// openings are the kinds of events with which a generation begins; collective those
// that all nodes see alike. The others happen to one.
var (
	openings   = []string{"lost", "left", "joined", "link", "view"}
	collective = append([]string{"pace", "nonfinite", "sums", "skipped", "early stop", "waiting", "fault", "recall"}, openings...)
)

// eventKey says which events are one, told by several.
type eventKey struct {
	kind, about, node string
	generation, step  uint64
	chapter           int
}

func keyOf(w Word, chapter int) eventKey {
	k := eventKey{w.Kind, w.About, w.Node, w.Generation, w.Step, chapter}
	if slices.Contains(collective, w.Kind) || w.Kind == "checkpoint" {
		k.node = ""
	}
	if w.Kind == "checkpoint" {
		k.generation = 0
	}
	return k
}

// teller writes a story. What happens often is told once, up to what comes after.
type teller struct {
	lines       []Line
	pace        []Word
	checkpoints []Word
	ends        []Word
}

func story(l *Log, lives []*life, chapters []time.Time) []Line {
	t := &teller{}
	told := map[eventKey]bool{}
	named := namedOpenings(l, chapters)
	starts := map[string]int{}
	for _, w := range l.Words {
		switch w.T {
		case "start":
			t.say(w.Time, "%s %s, with the state of step %d", w.Node, begun(starts[w.Node]), w.Step)
			starts[w.Node]++
		case "end":
			t.ends = append(t.ends, w)
		case "event":
			k := keyOf(w, chapter(chapters, w.Time))
			if told[k] || w.Kind == "refused" || w.Kind == "epoch" || vague(w) && named[opening{k.chapter, w.Generation}] {
				continue
			}
			told[k] = true
			t.event(w)
		}
	}
	t.flush()
	end := l.Words[len(l.Words)-1].Time
	for i, p := range lives {
		if again := slices.ContainsFunc(lives[i+1:], func(q *life) bool { return q.node == p.node }); !p.ended && (again || p.died(end)) {
			t.lines = append(t.lines, Line{p.last, fmt.Sprintf("the last word of %s, after step %d: this process did not end in order", p.node, p.step)})
		}
	}
	slices.SortStableFunc(t.lines, func(a, b Line) int { return a.At.Compare(b.At) })
	return t.lines
}

func begun(before int) string {
	if before == 0 {
		return "begins"
	}
	return fmt.Sprintf("begins again (start %d)", before+1)
}

// opening names a generation of a chapter.
type opening struct {
	chapter    int
	generation uint64
}

// namedOpenings tells of which generations somebody knows why they began.
func namedOpenings(l *Log, chapters []time.Time) map[opening]bool {
	named := map[opening]bool{}
	for _, w := range l.Words {
		if w.T == "event" && slices.Contains(openings, w.Kind) && !vague(w) {
			named[opening{chapter(chapters, w.Time), w.Generation}] = true
		}
	}
	return named
}

// vague tells whether an opening leaves out why there is a new generation.
func vague(w Word) bool {
	return w.Kind == "view" || (w.Kind == "lost" || w.Kind == "link") && (w.About == "" || w.About == "the ring")
}

func (t *teller) event(w Word) {
	switch {
	case w.Kind == "pace":
		t.pace = append(t.pace, w)
	case w.Kind == "checkpoint":
		t.checkpoints = append(t.checkpoints, w)
	case slices.Contains(collective, w.Kind):
		t.say(w.Time, "%s", w.Text)
	default:
		t.say(w.Time, "%s: %s", w.Node, w.Text)
	}
}

func (t *teller) say(at time.Time, format string, args ...any) {
	t.flush()
	t.lines = append(t.lines, Line{at, fmt.Sprintf(format, args...)})
}

// flush tells what was gathered.
func (t *teller) flush() {
	if n := len(t.checkpoints); n > 0 {
		first, last := t.checkpoints[0], t.checkpoints[n-1]
		text := fmt.Sprintf("checkpoint of step %d", last.Step)
		if n > 1 {
			text = fmt.Sprintf("%d checkpoints, of steps %d to %d", n, first.Step, last.Step)
		}
		t.lines = append(t.lines, Line{last.Time, text})
	}
	if n := len(t.pace); n > 0 {
		w := t.pace[n-1]
		text := w.Text
		if n > 1 {
			text = fmt.Sprintf("shares changed %d times; from step %d on, %s", n, w.Step, w.Text)
		}
		t.lines = append(t.lines, Line{w.Time, text})
	}
	for len(t.ends) > 0 {
		w := t.ends[0]
		var who []string
		t.ends = slices.DeleteFunc(t.ends, func(v Word) bool {
			if v.Text == w.Text && v.Step == w.Step {
				who = append(who, v.Node)
				return true
			}
			return false
		})
		t.lines = append(t.lines, Line{w.Time, fmt.Sprintf("%s: %s, at step %d", strings.Join(who, ", "), w.Text, w.Step)})
	}
	t.checkpoints, t.pace = nil, nil
}

// --- the sums ---

func (a *Account) count(l *Log, lives []*life) {
	checkpoints := map[uint64]bool{}
	repeats := map[uint64]Repeats{}
	for _, name := range l.Nodes {
		a.Nodes = append(a.Nodes, Node{Name: name})
	}
	updates := map[uint64]bool{}
	for _, w := range l.Words {
		n := &a.Nodes[slices.Index(l.Nodes, w.Node)]
		n.Last = w.Time
		switch {
		case w.T == "event" && w.Kind == "checkpoint":
			checkpoints[w.Step] = true
		case w.T == "step":
			r := repeats[w.Transition]
			repeats[w.Transition] = Repeats{
				max(r.Exponents, w.Repeat-w.Nonfinite-w.Doubted), max(r.Nonfinite, w.Nonfinite), max(r.Doubted, w.Doubted),
			}
			n.Took += time.Duration(w.Millis * float64(time.Millisecond))
			n.Waited += time.Duration(w.Waited * float64(time.Millisecond))
			if w.Kind == string(train.Update) {
				updates[w.Step] = true
				n.Updates++
				n.Microbatches += w.Hi - w.Lo
			}
		}
	}
	for _, p := range lives {
		n := &a.Nodes[slices.Index(l.Nodes, p.node)]
		n.Starts++
		if !p.ended && (n.Last.After(p.last) || p.died(a.End)) {
			n.Deaths++
		}
	}
	for _, r := range repeats {
		a.Repeats.Exponents += r.Exponents
		a.Repeats.Nonfinite += r.Nonfinite
		a.Repeats.Doubted += r.Doubted
	}
	a.Updates, a.Checkpoints = len(updates), len(checkpoints)
}

// turns finds the changes of generation among the transitions, by time.
func (a *Account) turns(l *Log, chapters []time.Time) {
	why := openingsOf(l, chapters)
	seen := map[opening]bool{}
	done := map[uint64]opening{} // by transition, who completed it last
	var gaps []time.Duration
	var last Word
	for _, w := range l.Words {
		if w.T != "step" {
			continue
		}
		at := opening{chapter(chapters, w.Time), w.Generation}
		before, known := done[w.Transition]
		switch {
		case !seen[at] && last.T != "":
			a.Turns = append(a.Turns, turn(last, w, at, chapter(chapters, last.Time), why[at]))
		case !known && last.T != "":
			gaps = append(gaps, w.Time.Sub(last.Time))
		}
		if known && before != at && len(a.Turns) > 0 {
			a.Turns[len(a.Turns)-1].Again++
		}
		if seen[at], done[w.Transition] = true, at; !known || before != at {
			last = w
		}
	}
	if slices.Sort(gaps); len(gaps) > 0 {
		a.Usual = gaps[len(gaps)/2]
	}
}

// openingsOf returns the event that says best why a generation began.
func openingsOf(l *Log, chapters []time.Time) map[opening]Word {
	why := map[opening]Word{}
	for _, w := range l.Words {
		at := opening{chapter(chapters, w.Time), w.Generation}
		if w.T == "event" && slices.Contains(openings, w.Kind) && (why[at].T == "" || vague(why[at]) && !vague(w)) {
			why[at] = w
		}
	}
	return why
}

func turn(last, next Word, at opening, before int, why Word) Turn {
	t := Turn{At: last.Time, Stood: next.Time.Sub(last.Time), What: fmt.Sprintf("generation %d", at.generation)}
	switch {
	case at.chapter != before:
		t.What, t.Fault = "all nodes had gone; started again", true
	case why.T == "":
	case why.Kind == "lost" || why.Kind == "link":
		t.What, t.Fault = why.About+" lost", true
		if why.Kind == "link" {
			t.What = "a link broke"
		}
		t.Known = max(0, why.Time.Add(-time.Duration(why.Millis*float64(time.Millisecond))).Sub(last.Time))
	case why.About != "":
		t.What = why.About + " " + why.Kind
	}
	return t
}

// --- on paper ---

// Write writes an account for people.
func (a *Account) Write(w io.Writer, name string) error {
	var names []string
	for _, n := range a.Nodes {
		names = append(names, n.Name)
	}
	fmt.Fprintf(w, "%s: trajectory %.16s, %s (%s)\n", name, a.Trajectory, plural(len(names), "node"), strings.Join(names, ", "))
	fmt.Fprintf(w, "from %s to %s, %s\n\n", a.Begin.Format("2006-01-02 15:04:05"), a.End.Format("2006-01-02 15:04:05"), seconds(a.End.Sub(a.Begin)))
	for _, line := range a.Story {
		fmt.Fprintf(w, "%12s  %s\n", seconds(line.At.Sub(a.Begin)), line.Text)
	}
	a.writeTurns(w)
	a.writeSums(w)
	return a.writeNodes(w)
}

func (a *Account) writeTurns(w io.Writer) {
	if len(a.Turns) == 0 {
		return
	}
	fmt.Fprintln(w, "\nwhat the changes of nodes cost")
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "AFTER\tWHAT\tKNOWN AFTER\tNEXT STEP AFTER\tCOMPUTED AGAIN")
	for _, u := range a.Turns {
		known, again := "-", "-"
		if u.Known > 0 {
			known = seconds(u.Known)
		}
		if u.Again > 0 {
			again = plural(u.Again, "transition")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", seconds(u.At.Sub(a.Begin)), u.What, known, seconds(u.Stood), again)
	}
	t.Flush() // to w, whose error the last Flush returns
}

// Cost returns how long faults kept the run from its next step, beyond what a step
// takes, and how many transitions were computed again for them.
func (a *Account) Cost() (faults int, stood time.Duration, again int) {
	for _, t := range a.Turns {
		if again += t.Again; t.Fault {
			faults++
			stood += max(0, t.Stood-a.Usual)
		}
	}
	return faults, stood, again
}

func (a *Account) writeSums(w io.Writer) {
	faults, stood, again := a.Cost()
	share := 0.0
	if took := a.End.Sub(a.Begin); took > 0 {
		share = 100 * stood.Seconds() / took.Seconds()
	}
	fmt.Fprintf(w, "\nfailures      %d, which cost %s (%.1f %% of the run; a step took %s)\n", faults, seconds(stood), share, seconds(a.Usual))
	fmt.Fprintf(w, "computed      %s; again: %s that were lost or done apart, at most %s in hand at a failure\n", plural(a.Updates, "update"), plural(again, "transition"), plural(faults, "attempt"))
	fmt.Fprintf(w, "repeated      %d for exponents, %d for results that were no number, %d for sums that changed on their way\n", a.Repeats.Exponents, a.Repeats.Nonfinite, a.Repeats.Doubted)
	fmt.Fprintf(w, "checkpoints   of %s\n\n", plural(a.Checkpoints, "step"))
}

func (a *Account) writeNodes(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTARTS\tDIED\tUPDATES\tMICROBATCHES\tIN STEPS\tWAITED FOR DATA\tLAST WORD")
	for _, n := range a.Nodes {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", n.Name, n.Starts, n.Deaths, n.Updates, n.Microbatches, seconds(n.Took), seconds(n.Waited), seconds(n.Last.Sub(a.Begin)))
	}
	return t.Flush()
}

// seconds writes a time for people, with three digits that count.
func seconds(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1000)
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
