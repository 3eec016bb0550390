package chaos

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
)

// Verdict is what the job comes to.
type Verdict struct {
	Model      string `json:"model_sha256"`
	State      string `json:"state_sha256"`
	Step       uint64 `json:"step"`
	Transition uint64 `json:"transition"`
}

// NodeVerdict is what a process says it has come to.
type NodeVerdict struct {
	Node string `json:"node"`
	Verdict
}

// Held is what a process holds.
type Held struct {
	Node       string `json:"node"`
	RSS        int64  `json:"rss_bytes"`
	Files      int    `json:"files"`
	Threads    int    `json:"threads"`
	Goroutines int    `json:"goroutines"`
}

// Report is what became of a run.
type Report struct {
	Options
	Ground      string        `json:"ground"`
	Job         Job           `json:"job"`
	Began       time.Time     `json:"began"`
	Took        time.Duration `json:"took_ns"`    // the script
	Settled     time.Duration `json:"settled_ns"` // from its end until all were in one view
	Played      []*Played     `json:"played"`
	Before      []Held        `json:"held_before"`
	After       []Held        `json:"held_after"` // empty where the job ended before it could be looked at
	Want        Verdict       `json:"want"`
	Verdicts    []NodeVerdict `json:"verdicts"`
	Checkpoints int           `json:"checkpoints"` // whole ones on the nodes' disks
	Starts      int           `json:"starts"`      // of processes
	Usual       time.Duration `json:"usual_step_ns"`
	Costs       []Cost        `json:"costs"`
	Joins       []Join        `json:"joins"`
	Troubles    []string      `json:"troubles"` // what should not have been
}

// Goal is a time that the program claims.
type Goal struct {
	What string
	Q    float64
	Most time.Duration
	of   func(r *Report) []time.Duration
}

// Goals are judged by faults that nothing else interfered with.
func Goals() []Goal {
	next := func(ks ...Kind) func(*Report) []time.Duration {
		return func(r *Report) []time.Duration {
			return r.times(func(c Cost) (time.Duration, bool) { return c.Next, c.Alone && c.Lost && slices.Contains(ks, c.Kind) })
		}
	}
	return []Goal{
		{"kill to the next step, p50", 0.5, 500 * time.Millisecond, next(Kill, Clock, OutOfMem)},
		{"kill to the next step, p99", 0.99, 1500 * time.Millisecond, next(Kill, Clock, OutOfMem)},
		{"freeze to the next step, p99", 0.99, 5 * time.Second, next(Freeze)},
		{"cut to the next step, p99", 0.99, 5 * time.Second, next(Partition, OneWay, LinkDown)},
		{"pause when a node joins, p99", 0.99, time.Second, func(r *Report) []time.Duration { return r.joinPauses(true) }},
	}
}

func (r *Report) times(of func(Cost) (time.Duration, bool)) (all []time.Duration) {
	for _, c := range r.Costs {
		if d, ok := of(c); ok {
			all = append(all, d)
		}
	}
	return all
}

func (r *Report) joinPauses(alone bool) (all []time.Duration) {
	for _, j := range r.Joins {
		if j.Alone || !alone {
			all = append(all, j.Pause)
		}
	}
	return all
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	pace := r.Took / time.Duration(max(1, len(r.Played)))
	fmt.Fprintf(w, "%d faults in %s, one per %.1f s, on %d nodes: %s\n", len(r.Played), r.Took.Round(time.Second), pace.Seconds(), r.Nodes, r.Ground)
	fmt.Fprintf(w, "%d steps of %.1f ms in the median, %d processes, %d whole checkpoints; one view of all %.1f s after the last fault\n",
		r.Want.Step, lives.Millis(r.Usual), r.Starts, r.Checkpoints, r.Settled.Seconds())
	r.writeTable(w, "faults by themselves", func(c Cost) bool { return c.Alone })
	r.writeTable(w, "all faults, those that overlap included", func(Cost) bool { return true })
	fmt.Fprintf(w, "\nno step because a node joined, beyond a usual one: %s; with faults at the same time: %s\n", lives.Figures(r.joinPauses(true)), lives.Figures(r.joinPauses(false)))
	r.writeHeld(w)
	fmt.Fprintln(w)
	for _, g := range Goals() {
		times := g.of(r)
		met := "met"
		switch got := lives.Quantile(times, g.Q); {
		case len(times) == 0:
			met = "not measured"
		case got > g.Most:
			met = "MISSED"
		}
		fmt.Fprintf(w, "goal  %-30s %6.0f ms, %6.0f ms wanted, n = %d: %s\n", g.What, lives.Millis(lives.Quantile(times, g.Q)), lives.Millis(g.Most), len(times), met)
	}
	fmt.Fprintf(w, "\nmodel SHA-256  %s  one process, no fault\n", r.Want.Model)
	for _, v := range r.Verdicts {
		fmt.Fprintf(w, "model SHA-256  %s  %s\n", v.Model, v.Node)
	}
	for _, t := range r.Troubles {
		fmt.Fprintf(w, "TROUBLE: %s\n", t)
	}
	if len(r.Troubles) > 0 {
		_, err := fmt.Fprintf(w, "%d troubles\n", len(r.Troubles))
		return err
	}
	_, err := fmt.Fprintln(w, "equal")
	return err
}

// rowOf is the line of the table that a fault belongs to.
func rowOf(c Cost) string {
	if slices.Contains([]Kind{Kill, Freeze, LinkDown}, c.Kind) {
		return string(c.Kind) + ", " + c.Role
	}
	return string(c.Kind)
}

func (r *Report) writeTable(w io.Writer, title string, in func(Cost) bool) {
	rows := map[string][]Cost{}
	for _, c := range r.Costs {
		if in(c) {
			rows[rowOf(c)] = append(rows[rowOf(c)], c)
		}
	}
	order := func(name string) int {
		kind, _, _ := strings.Cut(name, ",")
		return slices.Index(Kinds(), Kind(kind))
	}
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(order(a)-order(b), -strings.Compare(a, b)) })
	fmt.Fprintf(w, "\n%s; milliseconds\n", title)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "FAULT\tN\tLOST\tKNOWN p50\tp99\tMOST\tNEXT STEP p50\tp99\tMOST\tNO STEP FOR p50\tp99\tMOST\tBACK p50\tp99\tMOST\t")
	for _, name := range names {
		var known, next, gap, back []time.Duration
		for _, c := range rows[name] {
			gap = append(gap, c.Gap)
			if c.Lost {
				known, next = append(known, c.Known), append(next, c.Next)
			}
			if c.Whole {
				back = append(back, c.Back)
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t\n", name, len(rows[name]), len(known), cells(known), cells(next), cells(gap), cells(back))
	}
	t.Flush() // to w, whose error the last write of a report returns
}

// cells are three cells of a table.
func cells(times []time.Duration) string {
	if len(times) == 0 {
		return "-\t-\t-"
	}
	return fmt.Sprintf("%.0f\t%.0f\t%.0f", lives.Millis(lives.Quantile(times, 0.5)), lives.Millis(lives.Quantile(times, 0.99)), lives.Millis(slices.Max(times)))
}

func (r *Report) writeHeld(w io.Writer) {
	for _, h := range []struct {
		when string
		held []Held
	}{{"at the start", r.Before}, {"at the end", r.After}} {
		if len(h.held) == 0 {
			continue
		}
		m := most(h.held)
		fmt.Fprintf(w, "a process held at most %.0f MB, %d files, %d threads, %d goroutines %s\n", float64(m.RSS)/1e6, m.Files, m.Threads, m.Goroutines, h.when)
	}
}

// most is the most of each that any of some processes holds.
func most(all []Held) (m Held) {
	for _, h := range all {
		m.RSS, m.Files = max(m.RSS, h.RSS), max(m.Files, h.Files)
		m.Threads, m.Goroutines = max(m.Threads, h.Threads), max(m.Goroutines, h.Goroutines)
	}
	return m
}

// lent bounds what a member keeps in memory for those who join, in bytes, and what the
// garbage collector lets it grow to.
const lent = 2 * 64 << 20

// grown says what a node holds at the end that it did not at the start, beyond what a
// process of a few minutes' work may: half as much memory and goroutines again, what
// joiners may have lent, and some files and threads.
func grown(before, after []Held) (bad []string) {
	if len(before) == 0 || len(after) == 0 {
		return nil
	}
	b, a := most(before), most(after)
	if a.RSS > b.RSS+b.RSS/2+lent {
		bad = append(bad, fmt.Sprintf("a node holds %.0f MB at the end, %.0f MB at the start", float64(a.RSS)/1e6, float64(b.RSS)/1e6))
	}
	if a.Files > b.Files+8 {
		bad = append(bad, fmt.Sprintf("a node holds %d files at the end, %d at the start", a.Files, b.Files))
	}
	if a.Goroutines > b.Goroutines+b.Goroutines/2 {
		bad = append(bad, fmt.Sprintf("a node has %d goroutines at the end, %d at the start", a.Goroutines, b.Goroutines))
	}
	if a.Threads > b.Threads+8 {
		bad = append(bad, fmt.Sprintf("a node has %d threads at the end, %d at the start", a.Threads, b.Threads))
	}
	return bad
}
