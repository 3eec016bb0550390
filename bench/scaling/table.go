package main

import (
	"fmt"
	"io"
	"strings"
)

// writeTables writes the tables of docs/scaling.md.
func writeTables(out io.Writer) {
	writeWeak(out)
	writeAlgorithms(out)
	writeCrossings(out)
	writeHeaders(out)
	writeStrong(out)
}

func head(out io.Writer, columns ...string) {
	fmt.Fprintf(out, "| %s |\n|%s|\n", strings.Join(columns, " | "), strings.Repeat("--:|", len(columns)-1)+"--:")
}

// writeWeak writes steps of each net with the algorithms that dlnode has.
func writeWeak(out io.Writer) {
	for _, n := range Nets {
		alone := Predict(n, 1, Links[0], Node, Algorithms[0])
		fmt.Fprintf(out, "**%s**: %d parameters, %d samples a node, %s alone\n\n", n.Name, n.Params, n.Local, span(alone.Total()))
		columns := []string{"nodes", "sent"}
		for _, l := range Links {
			columns = append(columns, l.Name)
		}
		head(out, columns...)
		for _, w := range Worlds {
			_, s := Best(n, w, Links[0], Node, false)
			fmt.Fprintf(out, "| %d | %s |", w, size(s.Bytes))
			for _, l := range Links {
				a, s := Best(n, w, l, Node, false)
				fmt.Fprintf(out, " %s, %s, %s |", span(s.Total()), a.Name, percents(s.Efficiency(), s.Overlapped()))
			}
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out)
	}
}

// percents writes a range.
func percents(from, to float64) string {
	a, b := fmt.Sprintf("%.0f", 100*from), fmt.Sprintf("%.0f", 100*to)
	if a == b {
		return a + " %"
	}
	return a + "–" + b + " %"
}

// extremes are a small net and a large one.
var extremes = []Net{Nets[0], Nets[len(Nets)-1]}

// writeAlgorithms writes the all-reduce alone, by algorithm.
func writeAlgorithms(out io.Writer) {
	for _, n := range extremes {
		for _, l := range []Link{Links[1], Links[3]} {
			fmt.Fprintf(out, "%s, all-reduce alone, %s\n\n", n.Name, l.Name)
			columns := []string{"nodes"}
			for _, a := range Algorithms {
				columns = append(columns, a.Name)
			}
			head(out, columns...)
			for _, w := range Worlds {
				fmt.Fprintf(out, "| %d |", w)
				for _, a := range Algorithms {
					cell := span(Predict(n, w, l, Node, a).Reduce)
					if a.Most > 0 && w > a.Most {
						cell = "(" + cell + ")"
					}
					fmt.Fprintf(out, " %s |", cell)
				}
				fmt.Fprintln(out)
			}
			fmt.Fprintln(out)
		}
	}
}

// overtaken returns the smallest world, within 2 % and above those that have direct links, in which an
// algorithm takes less than half of what the ring takes; 0 if none does up to the largest of Worlds.
func overtaken(n Net, l Link, by Algorithm) int {
	ring := named("ring")
	for w := 17; w <= Worlds[len(Worlds)-1]; w += max(1, w/50) {
		if 2*Predict(n, w, l, Node, by).Reduce < Predict(n, w, l, Node, ring).Reduce {
			return w
		}
	}
	return 0
}

// writeCrossings writes where the ring stops being right.
func writeCrossings(out io.Writer) {
	columns := []string{"net", "instead of the ring"}
	for _, l := range Links {
		columns = append(columns, l.Name)
	}
	head(out, columns...)
	for _, n := range Nets {
		for _, name := range []string{"tree", "two-level", "halving"} {
			fmt.Fprintf(out, "| %s | %s |", n.Name, name)
			for _, l := range Links {
				if w := overtaken(n, l, named(name)); w > 0 {
					fmt.Fprintf(out, " %d |", w)
				} else {
					fmt.Fprint(out, " – |")
				}
			}
			fmt.Fprintln(out)
		}
	}
	fmt.Fprintln(out)
}

// writeHeaders writes what headers of all for all come to.
func writeHeaders(out io.Writer) {
	head(out, "nodes", "net", "elements a step", "headers, ring or two-level", "headers, tree's root", "frames of a rank, two-level", "combined up a tree")
	for _, w := range []int{128, 1024, 4096} {
		for _, n := range extremes {
			two, tree, half := named("two-level").Work(n, w), named("tree").Work(n, w), halving(n, w)
			fmt.Fprintf(out, "| %d | %s | %s | %s | %s | %.0f | %s |\n", w, n.Name, size(two.Elements), size(two.Headers), size(tree.Headers), two.Frames, size(half.Headers))
		}
	}
	fmt.Fprintln(out)
}

// writeStrong writes how much faster the examples' own batches go: their microbatches bound the nodes.
func writeStrong(out io.Writer) {
	columns := []string{"net", "samples a step", "microbatches, nodes at most"}
	for _, l := range Links {
		columns = append(columns, l.Name)
	}
	head(out, columns...)
	for _, n := range Nets {
		most := n.Global / n.Micro
		fmt.Fprintf(out, "| %s | %d | %d |", n.Name, n.Global, most)
		for _, l := range Links {
			fmt.Fprintf(out, " %.2f |", speedup(n, most, l))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
}

// speedup is that of so many nodes of one core over one such node, at the batch of the example. Compute is
// the time of one microbatch on one core.
func speedup(n Net, world int, l Link) float64 {
	microbatches := n.Global / n.Micro
	alone, shared := n, n
	alone.Compute = n.Compute * float64(microbatches)
	shared.Compute = n.Compute * float64((microbatches+world-1)/world)
	_, s := Best(shared, world, l, Node, false)
	return Predict(alone, 1, l, Node, Algorithms[0]).Total() / s.Total()
}
