package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"gonum.org/v1/gonum/optimize"

	"github.com/dlnode/dlnode/allreduce"
)

// measured is what 'dlnode bench allreduce --json' writes, as far as it is looked at.
type measured struct {
	Rate float64 `json:"link_bits_per_s"`
	Rows []row   `json:"rows"`
}

// row is one size in one world.
type row struct {
	World int     `json:"world"`
	Bytes int64   `json:"bytes"` // 4 for each element
	Kind  string  `json:"kind"`
	Mean  float64 `json:"mean_us"` // ranks run ahead of each other, so that single ops, and their median, look short
	Sent  int64   `json:"sent_bytes"`
}

// readMeasured reads the rows of the all-reduce alone.
func readMeasured(path string) (*measured, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var m measured
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.Rows = slices.DeleteFunc(m.Rows, func(r row) bool { return r.Kind != "bare" })
	if len(m.Rows) == 0 {
		return nil, fmt.Errorf("%s has no rows of kind bare (want what 'dlnode bench allreduce --json' has written)", path)
	}
	for i, r := range m.Rows {
		if r.World < 2 || r.Bytes < 4 || !(r.Mean > 0) || r.Sent < 1 {
			return nil, fmt.Errorf("%s: row %d: no all-reduce of %d ranks, %d bytes, %d sent, %v µs", path, i+1, r.World, r.Bytes, r.Sent, r.Mean)
		}
	}
	return &m, nil
}

// taken returns the algorithm that a row's ranks took: of those that are chosen where all have links, the
// one with the fewest bytes that are as many as were sent. Packing makes them fewer, nothing makes them more.
func (r row) taken() (a allreduce.Algorithm, work allreduce.Work) {
	for _, b := range []allreduce.Algorithm{allreduce.Exchange, allreduce.Direct} {
		w, _ := allreduce.WorkOf(b, int(r.Bytes/4), r.World, nil, allreduce.DefaultSegmentBytes)
		if a == allreduce.Auto || float64(w.Bytes) >= 0.99*float64(r.Sent) && w.Bytes < work.Bytes {
			a, work = b, w
		}
	}
	return a, work
}

// fit is what a link costs among the ranks of one machine.
type fit struct {
	Alpha, Frame, Byte float64 // seconds
	Cores              int     // of the machine, which its ranks share
}

// predict returns how long an op takes: what bounds its bytes is the CPU, or the wire of so many bytes a
// second where there is one. Ranks that are more than cores wait for one another.
func (f fit) predict(r row, rate float64) float64 {
	_, w := r.taken()
	return f.Alpha*float64(w.Hops) + f.share(r.World)*f.Frame*float64(w.Frames) + f.each(r.World, rate)*float64(r.Sent)
}

// fitted finds the costs that explain rows best: the least sum of squares of log(predicted/measured).
func fitted(rows []row, cores int) (fit, error) {
	at := func(x []float64) fit { return fit{math.Exp(x[0]), math.Exp(x[1]), math.Exp(x[2]), cores} }
	problem := optimize.Problem{Func: func(x []float64) (sum float64) {
		f := at(x)
		for _, r := range rows {
			d := math.Log(f.predict(r, 0) / (r.Mean * 1e-6))
			sum += d * d
		}
		return sum
	}}
	begin := []float64{math.Log(30e-6), math.Log(8e-6), math.Log(0.5e-9)}
	found, err := optimize.Minimize(problem, begin, &optimize.Settings{FuncEvaluations: 5000}, &optimize.NelderMead{})
	if err != nil {
		return fit{}, fmt.Errorf("no fit: %w", err)
	}
	return at(found.X), nil
}

// point is a prediction beside its measurement.
type point struct {
	row
	Set       string
	Rate      float64 // bytes a second of the link; 0 is loopback
	Fitted    bool    // the fit has seen it
	Predicted float64
	Taken     allreduce.Algorithm
}

// ratio is 1 where the prediction is right.
func (p point) ratio() float64 { return p.Predicted / (p.Mean * 1e-6) }

// wire is the part of a link's rate that payload can have: 1448 bytes of packets of 1514.
const wire = 1448. / 1514

// check fits the costs to the first file, without its largest world, and predicts all.
func check(paths []string, cores int) (f fit, all []point, err error) {
	for i, path := range paths {
		m, err := readMeasured(path)
		if err != nil {
			return f, nil, err
		}
		largest := slices.MaxFunc(m.Rows, func(a, b row) int { return a.World - b.World }).World
		seen := func(r row) bool { return i == 0 && r.World < largest }
		if i == 0 {
			if f, err = fitted(slices.DeleteFunc(slices.Clone(m.Rows), func(r row) bool { return !seen(r) }), cores); err != nil {
				return f, nil, fmt.Errorf("%s: %w", path, err)
			}
		}
		set := "loopback"
		if m.Rate > 0 {
			set = fmt.Sprintf("%g Gbit/s", m.Rate/1e9)
		}
		for _, r := range m.Rows {
			a, _ := r.taken()
			all = append(all, point{r, set, m.Rate / 8 * wire, seen(r), f.predict(r, m.Rate/8*wire), a})
		}
	}
	return f, all, nil
}

// each is what a byte costs ranks of which so many share the machine.
func (f fit) each(world int, rate float64) float64 {
	each := f.share(world) * f.Byte
	if rate > 0 {
		each = max(each, 1/rate)
	}
	return each
}

// share is how many ranks there are for a core.
func (f fit) share(world int) float64 { return max(1, float64(world)/float64(f.Cores)) }

// choice is what package allreduce chooses by the fit.
func (f fit) choice(r row, rate float64) allreduce.Algorithm {
	l := allreduce.Link{
		Alpha: duration(f.Alpha), Frame: duration(f.share(r.World) * f.Frame), Beta: duration(f.each(r.World, rate) * (1 << 20)),
	}
	return allreduce.Choose(allreduce.NewModel(l, allreduce.Link{}), int(r.Bytes/4), r.World, nil, allreduce.DefaultSegmentBytes)
}

// writeCheck writes predictions beside measurements.
func writeCheck(out io.Writer, f fit, all []point) {
	fmt.Fprintf(out, "alpha %.1f µs, frame %.1f µs, byte %.2f ns, %d cores\n\n", f.Alpha*1e6, f.Frame*1e6, f.Byte*1e9, f.Cores)
	fmt.Fprintln(out, "| link | ranks | size | took | would take | sent, bytes an element | predicted | measured | ratio |")
	fmt.Fprintln(out, "|---|--:|--:|---|---|--:|--:|--:|--:|")
	sums := map[string][]float64{}
	for _, p := range all {
		set := p.Set + ", not fitted"
		mark := ""
		if p.Fitted {
			set, mark = p.Set+", fitted", ", fitted"
		}
		sums[set] = append(sums[set], math.Abs(math.Log(p.ratio())))
		fmt.Fprintf(out, "| %s%s | %d | %d KiB | %v | %v | %.1f | %s | %s | %.2f |\n", p.Set, mark, p.World, p.Bytes>>10, p.Taken, f.choice(p.row, p.Rate),
			float64(p.Sent)/float64(p.Bytes/4), span(p.Predicted), span(p.Mean*1e-6), p.ratio())
	}
	fmt.Fprintln(out)
	for _, set := range sortedKeys(sums) {
		mean := 0.
		for _, x := range sums[set] {
			mean += x / float64(len(sums[set]))
		}
		fmt.Fprintf(out, "%s: off by a factor of %.2f on average (geometric mean), %.2f at most, %d rows\n", set, math.Exp(mean), math.Exp(slices.Max(sums[set])), len(sums[set]))
	}
}
