package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what goes wrong.
type Kind string

// The kinds of faults. Each leaves the others' processes alone; what lasts is healed
// after Fault.Lasts.
const (
	Kill      Kind = "kill"      // SIGKILL; started again
	OutOfMem  Kind = "oom"       // the kernel kills the process, as its memory has no room; started again
	Clock     Kind = "clock"     // SIGKILL; started again with clocks that stand elsewhere
	Freeze    Kind = "freeze"    // SIGSTOP, SIGCONT: longer than silence is tolerated
	Pause     Kind = "pause"     // the same, shorter
	LinkDown  Kind = "link-down" // the carrier of its link goes, and comes back
	Partition Kind = "partition" // the network in two
	OneWay    Kind = "one-way"   // what it sends is lost, or what is sent to it, or on the way to one other
	Delay     Kind = "delay"     // what it sends is held up
	Loss      Kind = "loss"      // of what it sends a part is lost
	Bandwidth Kind = "bandwidth" // its link carries little
	FullDisk  Kind = "full-disk" // where it writes checkpoints is no room
	Starve    Kind = "starve"    // its process gets little of a CPU
)

// habit is how a kind of fault is drawn.
type habit struct {
	kind        Kind
	weight      int
	least, most time.Duration // Fault.Lasts
	settle      time.Duration // what the cluster is usually given after it
}

var kinds = []habit{
	{Kill, 8, 100 * time.Millisecond, 1500 * time.Millisecond, 1500 * time.Millisecond},
	{OutOfMem, 3, 100 * time.Millisecond, time.Second, 1500 * time.Millisecond},
	{Clock, 1, 100 * time.Millisecond, time.Second, 1500 * time.Millisecond},
	{Freeze, 4, 2500 * time.Millisecond, 4 * time.Second, time.Second},
	{Pause, 3, 50 * time.Millisecond, 900 * time.Millisecond, 500 * time.Millisecond},
	{LinkDown, 3, 2500 * time.Millisecond, 4 * time.Second, time.Second},
	{Partition, 4, 2500 * time.Millisecond, 5 * time.Second, time.Second},
	{OneWay, 3, 2500 * time.Millisecond, 4 * time.Second, time.Second},
	{Delay, 2, time.Second, 3 * time.Second, 300 * time.Millisecond},
	{Loss, 2, time.Second, 3 * time.Second, 300 * time.Millisecond},
	{Bandwidth, 2, time.Second, 3 * time.Second, 300 * time.Millisecond},
	{FullDisk, 2, 2 * time.Second, 5 * time.Second, 0},
	{Starve, 2, time.Second, 3 * time.Second, 300 * time.Millisecond},
}

// Kinds returns all kinds there are.
func Kinds() (all []Kind) {
	for _, k := range kinds {
		all = append(all, k.kind)
	}
	return all
}

// Direction is the way of what a OneWay fault loses.
type Direction string

// Directions, as the victim sees it.
const (
	Out  Direction = "out"  // to all others
	In   Direction = "in"   // from all others
	Pair Direction = "pair" // to one other
)

// Fault is a line of a script.
type Fault struct {
	N           int           `json:"n"` // from 1
	At          time.Duration `json:"at_ns"`
	Kind        Kind          `json:"kind"`
	Coordinator bool          `json:"coordinator,omitempty"` // whoever that is then, and not
	Node        int           `json:"node"`                  // this one, from 0. Who is unfit for it at the moment is spared, for the next one
	With        []int         `json:"with,omitempty"`        // of Partition: who else is on the victim's side, if not already; of Pair: the other
	Direction   Direction     `json:"direction,omitempty"`   // of OneWay
	Lasts       time.Duration `json:"lasts_ns"`              // until it is healed, or the process is started again
	Amount      float64       `json:"amount,omitempty"`      // Delay: ms; Loss: parts of 1; Bandwidth: Mbit/s; Starve: parts of a CPU; Clock: s
}

func (f Fault) String() string {
	whom := nodeName(f.Node)
	if f.Coordinator {
		whom = "the coordinator"
	}
	text := fmt.Sprintf("%8.2f s  #%-3d %-9s %s", f.At.Seconds(), f.N, f.Kind, whom)
	switch f.Kind {
	case Partition:
		var with []string
		for _, i := range f.With {
			with = append(with, nodeName(i))
		}
		text += " with " + strings.Join(with, ", ")
	case OneWay:
		text += ", " + string(f.Direction)
		if f.Direction == Pair {
			text += " with " + nodeName(f.With[0])
		}
	case Delay:
		text += fmt.Sprintf(", %.0f ms", f.Amount)
	case Loss:
		text += fmt.Sprintf(", %.1f %%", 100*f.Amount)
	case Bandwidth:
		text += fmt.Sprintf(", %.0f Mbit/s", f.Amount)
	case Starve:
		text += fmt.Sprintf(", %.0f %% of a CPU", 100*f.Amount)
	case Clock:
		text += fmt.Sprintf(", %+.0f s", f.Amount)
	}
	return text + fmt.Sprintf(", %.1f s", f.Lasts.Seconds())
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i+1) }

// Options is what a script is a function of.
type Options struct {
	Seed   uint64
	Faults int
	Every  time.Duration // from one fault to the next, in the mean
	Nodes  int           // at least 3
	Kinds  []Kind        // that may be drawn
}

// Script is what happens, by time.
type Script []Fault

func (s Script) String() string {
	var text strings.Builder
	for _, f := range s {
		fmt.Fprintln(&text, f)
	}
	return text.String()
}

// overlapping is the share of faults that begin while the one before lasts.
const overlapping = 0.2

// Draw makes the script of some options.
func Draw(o Options) Script {
	if o.Nodes < 3 || len(o.Kinds) == 0 {
		panic("chaos: a script takes three nodes and a kind of fault")
	}
	rnd := rand.New(rand.NewPCG(o.Seed, uint64(o.Nodes)))
	s := make(Script, o.Faults)
	var at time.Duration
	for i := range s {
		f, settle := drawFault(rnd, o)
		f.N, f.At = i+1, at
		s[i] = f
		if rnd.Float64() < overlapping {
			at += time.Duration(rnd.Float64() * float64(f.Lasts))
		} else {
			at += f.Lasts + settle
		}
	}
	// The pauses between are as long as it takes to keep the pace.
	if end := at; end > 0 {
		scale := float64(o.Every) * float64(o.Faults) / float64(end)
		for i := range s {
			s[i].At = time.Duration(float64(s[i].At) * scale)
		}
	}
	return s
}

// drawHabit draws one of some kinds, by weight.
func drawHabit(rnd *rand.Rand, of []Kind) habit {
	total := 0
	for _, k := range of {
		total += habitOf(k).weight
	}
	at := rnd.IntN(total)
	for _, k := range kinds {
		if slices.Contains(of, k.kind) {
			if at -= k.weight; at < 0 {
				return k
			}
		}
	}
	panic("chaos: kinds without a weight")
}

func habitOf(k Kind) habit {
	return kinds[slices.IndexFunc(kinds, func(h habit) bool { return h.kind == k })]
}

func drawFault(rnd *rand.Rand, o Options) (Fault, time.Duration) {
	var f Fault
	k := drawHabit(rnd, o.Kinds)
	f.Kind = k.kind
	f.Lasts = k.least + time.Duration(rnd.Float64()*float64(k.most-k.least)).Truncate(time.Millisecond)
	f.Node = rnd.IntN(o.Nodes)
	f.Coordinator = rnd.IntN(2) == 0
	between := func(least, most float64) float64 { return least + rnd.Float64()*(most-least) }
	switch f.Kind {
	case Partition:
		f.With = rnd.Perm(o.Nodes)[:o.Nodes/2] // the victim takes the place of one, see side
	case OneWay:
		f.Direction = []Direction{Out, In, Pair}[rnd.IntN(3)]
		f.With = []int{(f.Node + 1 + rnd.IntN(o.Nodes-1)) % o.Nodes}
	case Delay:
		f.Amount = between(10, 150)
	case Loss:
		f.Amount = between(0.005, 0.05)
	case Bandwidth:
		f.Amount = between(5, 50)
	case Starve:
		f.Amount = between(0.1, 0.4)
	case Clock:
		f.Amount = between(1000, 1e6)
	}
	return f, k.settle
}

// side is the victim's half of a cut network.
func (f Fault) side(victim, nodes int) []int {
	side := []int{victim}
	for _, i := range f.With {
		if i != victim && len(side) < nodes/2 {
			side = append(side, i)
		}
	}
	slices.Sort(side)
	return side
}

// other is the node at the far end of a Pair.
func (f Fault) other(victim, nodes int) int {
	if f.With[0] != victim {
		return f.With[0]
	}
	return (victim + 1) % nodes
}
