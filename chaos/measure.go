package chaos

import (
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
)

// Played is a fault as it happened.
type Played struct {
	Fault
	Victims        []string  `json:"victims"` // whom the others may lose: one, both ends of a pair, or half of all
	WasCoordinator bool      `json:"was_coordinator"`
	Start          time.Time `json:"start"`
	End            time.Time `json:"end"`                // healed, or started again; zero if the run ended before
	Noticed        time.Time `json:"noticed,omitzero"`   // of those that a process dies of: when whoever plays saw that
	Survived       bool      `json:"survived,omitempty"` // OutOfMem: the kernel did not kill the process in time
}

// Cost is what a fault cost those whom it left behind; of a cut in two there are two, one
// for each side.
type Cost struct {
	Fault int           `json:"fault"` // its number
	Kind  Kind          `json:"kind"`
	Role  string        `json:"role"`         // coordinator or worker: the victim's, then
	Lost  bool          `json:"lost"`         // a view ended for it; else the next two are 0
	Known time.Duration `json:"known_ns"`     // until the first of them knew that the view was over
	Next  time.Duration `json:"next_step_ns"` // until the first of them completed a step in another view
	Gap   time.Duration `json:"gap_ns"`       // the longest time in which none of them completed a step, until it was got over
	Alone bool          `json:"alone"`        // when it began all nodes were in one view, and no other fault was on until it was got over
	Whole bool          `json:"whole"`        // all were in one view again before anything else happened
	Back  time.Duration `json:"back_ns"`      // if so: after the fault's end
}

// moment is a word of a node's journal that tells of its views.
type moment struct {
	at         time.Time
	known      time.Time // of an opening: since when the node knew that the view before was over
	opening    string    // kind of the event with which the view began; "" where a step was completed
	about      []string  // of an opening: whom it tells of
	generation uint64
	view       string
}

// openings are the events with which a view begins.
var openings = []string{"view", "lost", "link", "joined", "left"}

// losses are those of them that tell of a fault.
var losses = []string{"lost", "link"}

// trackOf lists the moments of each node, by time.
func trackOf(all []lives.Life) map[string][]moment {
	track := map[string][]moment{}
	for _, l := range all {
		for _, r := range l.Records {
			m := moment{at: r.Time, known: r.Time.Add(-time.Duration(r.Millis * float64(time.Millisecond))), generation: r.Generation, view: r.View}
			switch {
			case r.T == "event" && slices.Contains(openings, r.Kind):
				m.opening, m.about = r.Kind, namesIn(r.About)
			case r.T != "step":
				continue
			}
			track[l.Node] = append(track[l.Node], m)
		}
	}
	for _, ms := range track {
		slices.SortStableFunc(ms, func(a, b moment) int { return a.at.Compare(b.at) })
	}
	return track
}

// namesIn reads whom an event is about: "node-1 (coordinator), node-2", "the ring".
func namesIn(about string) (names []string) {
	for part := range strings.SplitSeq(about, ", ") {
		name, _, _ := strings.Cut(part, " ")
		names = append(names, name)
	}
	return names
}

// costs tells what each fault cost.
func costs(played []*Played, track map[string][]moment) (all []Cost) {
	whole := wholeTimes(track)
	for _, x := range played {
		interferes := func(from, to time.Time) bool {
			return slices.ContainsFunc(played, func(y *Played) bool { return y != x && y.on(from, to) })
		}
		for _, left := range leftBehind(x, track) {
			c := costOf(x, left, whenBlamed(x, played))
			c.Alone = whole.at(x.Start) && !interferes(x.Start, x.Start.Add(max(c.Known, c.Next, c.Gap)))
			if back, ok := whole.after(x.End); ok && !x.End.IsZero() && !interferes(x.Start, back) {
				c.Whole, c.Back = true, max(0, back.Sub(x.End))
			}
			all = append(all, c)
		}
	}
	return all
}

// wholes are the times in which all nodes were in one view, as far as they knew.
type wholes []struct{ from, to time.Time }

func wholeTimes(track map[string][]moment) (all wholes) {
	type turn struct {
		moment
		node string
	}
	var turns []turn
	for node, ms := range track {
		for _, m := range ms {
			if m.opening != "" {
				turns = append(turns, turn{m, node})
			}
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return a.at.Compare(b.at) })
	in := map[string]string{} // node to view
	for _, t := range turns {
		if n := len(all); n > 0 && all[n-1].to.IsZero() {
			all[n-1].to = t.at
		}
		in[t.node] = t.view
		same := len(in) == len(track)
		for _, view := range in {
			same = same && view == t.view
		}
		if same {
			all = append(all, struct{ from, to time.Time }{from: t.at})
		}
	}
	return all
}

func (w wholes) at(t time.Time) bool {
	for _, x := range w {
		if !x.from.After(t) && (x.to.IsZero() || x.to.After(t)) {
			return true
		}
	}
	return false
}

// after returns when all were in one view first, from a time on.
func (w wholes) after(t time.Time) (at time.Time, ok bool) {
	for _, x := range w {
		if x.to.IsZero() || x.to.After(t) {
			return x.from, true
		}
	}
	return at, false
}

// leftBehind returns the tracks of those who lose the victims; and of a cut in two those
// of the victims as well, who lose the others.
func leftBehind(x *Played, track map[string][]moment) []left {
	var others, victims left
	for node, ms := range track {
		if slices.Contains(x.Victims, node) {
			victims.tracks = append(victims.tracks, ms)
			others.lose = append(others.lose, node)
		} else {
			others.tracks = append(others.tracks, ms)
			victims.lose = append(victims.lose, node)
		}
	}
	if x.Kind == Partition {
		return []left{others, victims}
	}
	return []left{others}
}

// left are the tracks of some nodes, and whom they lose.
type left struct {
	tracks [][]moment
	lose   []string
}

// tells whether an opening is about one that they lose, or does not say whom it is about.
func (l left) tells(m moment) bool {
	return slices.ContainsFunc(m.about, func(name string) bool {
		return name == "" || name == "the" || slices.Contains(l.lose, name)
	})
}

// on tells whether a fault lasts at some moment of a time.
func (x *Played) on(from, to time.Time) bool {
	return x.Start.Before(to) && (x.End.IsZero() || x.End.After(from))
}

// hindsight is how long after its end a fault may still be the cause of a loss: somebody may
// have been waiting for the answer to a ping.
const hindsight = 2 * time.Second

// whenBlamed is until when a loss is taken for a fault's doing: not any more once another
// befalls the same node.
func whenBlamed(x *Played, played []*Played) time.Time {
	until := x.End.Add(hindsight)
	if x.End.IsZero() {
		until = x.Start.Add(time.Minute)
	}
	for _, y := range played {
		same := slices.ContainsFunc(y.Victims, func(node string) bool { return slices.Contains(x.Victims, node) })
		if same && y.Start.After(x.Start) && y.Start.Before(until) {
			until = y.Start
		}
	}
	return until
}

func costOf(x *Played, l left, until time.Time) Cost {
	c := Cost{Fault: x.N, Kind: x.Kind, Role: "worker"}
	if x.WasCoordinator {
		c.Role = "coordinator"
	}
	for _, ms := range l.tracks {
		known, next, ok := overcame(ms, l, x.Start, until)
		if !ok {
			continue
		}
		if !c.Lost || known < c.Known {
			c.Known = known
		}
		if !c.Lost || next < c.Next {
			c.Next = next
		}
		c.Lost = true
	}
	end := x.Start.Add(max(c.Next, x.End.Sub(x.Start)))
	c.Gap = longestGap(l.tracks, x.Start, end)
	return c
}

// overcame finds in a node's track the first view that it lost somebody for after a
// moment, and its next step.
func overcame(ms []moment, l left, start, until time.Time) (known, next time.Duration, ok bool) {
	i, _ := slices.BinarySearchFunc(ms, start, func(m moment, t time.Time) int { return m.at.Compare(t) })
	lost := -1
	for ; i < len(ms); i++ {
		switch m := ms[i]; {
		case lost < 0 && m.known.After(until):
			return 0, 0, false
		case lost < 0 && slices.Contains(losses, m.opening) && l.tells(m):
			lost = i
		case lost >= 0 && m.opening == "" && m.generation >= ms[lost].generation:
			known := ms[lost].known
			if !known.After(start) { // the view before was over already, for another reason
				known = ms[lost].at
			}
			return known.Sub(start), m.at.Sub(start), true
		}
	}
	return 0, 0, false
}

// longestGap is the longest time without a step of any of some nodes that begins before
// end and ends after start, as far as it comes after start.
func longestGap(tracks [][]moment, start, end time.Time) (longest time.Duration) {
	var steps []time.Time
	for _, ms := range tracks {
		i, _ := slices.BinarySearchFunc(ms, start, func(m moment, t time.Time) int { return m.at.Compare(t) })
		for ; i < len(ms); i++ {
			if ms[i].opening == "" {
				steps = append(steps, ms[i].at)
				if ms[i].at.After(end) {
					break
				}
			}
		}
	}
	slices.SortFunc(steps, time.Time.Compare)
	last := start
	for _, at := range steps {
		if last.After(end) {
			break
		}
		longest = max(longest, at.Sub(last))
		last = at
	}
	return longest
}

// Join is how long the others completed no step because nodes joined, beyond a usual one.
type Join struct {
	At    time.Time     `json:"at"`
	Pause time.Duration `json:"pause_ns"`
	Alone bool          `json:"alone"` // no fault was on
}

// joins finds the views that began as somebody joined.
func joins(played []*Played, track map[string][]moment, usual time.Duration) (all []Join) {
	type view struct {
		generation uint64
		second     int64 // two halves may have views of one number
	}
	seen := map[view]int{}
	for _, ms := range track {
		var last time.Time // step
		for i, m := range ms {
			if m.opening == "" {
				last = m.at
			}
			if m.opening != "joined" || last.IsZero() {
				continue
			}
			k := slices.IndexFunc(ms[i:], func(n moment) bool { return n.opening == "" && n.generation >= m.generation })
			if k < 0 || slices.ContainsFunc(ms[i+1:i+k], func(n moment) bool { return n.opening != "" }) {
				continue // it came to nothing
			}
			next := ms[i+k].at
			j := Join{At: m.at, Pause: max(0, next.Sub(last)-usual)}
			j.Alone = !slices.ContainsFunc(played, func(x *Played) bool { return x.on(last, next) })
			key := view{m.generation, m.at.Unix() / 10}
			if at, ok := seen[key]; ok {
				all[at].Pause = min(all[at].Pause, j.Pause) // who was away itself took longer
				continue
			}
			seen[key] = len(all)
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b Join) int { return a.At.Compare(b.At) })
	return all
}

// usualStep is the time from step to step of a node in one view, in the median.
func usualStep(track map[string][]moment) time.Duration {
	var gaps []time.Duration
	for _, ms := range track {
		for i := 1; i < len(ms); i++ {
			if a, b := ms[i-1], ms[i]; a.opening == "" && b.opening == "" && a.generation == b.generation {
				gaps = append(gaps, b.at.Sub(a.at))
			}
		}
	}
	return lives.Quantile(gaps, 0.5)
}

// dateDeaths sets when processes died that the kernel killed for want of memory: at their
// journals' last word, as nobody else was there. A node writes its steps through every
// 50 ms, so this is early by so much at most, and what it cost is not told too small.
func dateDeaths(played []*Played, track map[string][]moment) {
	for _, x := range played {
		if x.Kind != OutOfMem || x.Survived {
			continue
		}
		ms := track[x.Victims[0]]
		i, _ := slices.BinarySearchFunc(ms, x.Noticed, func(m moment, t time.Time) int { return m.at.Compare(t) })
		if i > 0 && ms[i-1].at.After(x.Start) {
			x.Start = ms[i-1].at
		}
	}
}

// checked is what the journals of a run must show, whatever was done to it.
func checked(all []lives.Life, job Job, transitions uint64) (bad []string) {
	return slices.Concat(lives.Forwards(all), lives.Complete(all, transitions), lives.Shares(all, job.Micro()), lives.ExactlyOnce(all, job.Samples))
}
