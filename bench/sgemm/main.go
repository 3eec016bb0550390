// Command sgemm times the products of package kernel against OpenBLAS, in one
// process and in turns, and prints a table in Markdown:
//
//	cd bench && go run ./sgemm -threads 1
//
// It is a module of its own with cgo, so that nothing else of dlnode is linked
// with C. Debian has OpenBLAS as libopenblas0-pthread.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/internal/kernel"
)

func main() {
	library := flag.String("openblas", "libopenblas.so.0", "the library to load")
	cpu := flag.String("cpu", "", "our variant: "+strings.Join(kernel.Variants(), ", "))
	rounds := flag.Int("rounds", 9, "turns of each side")
	turn := flag.Duration("turn", 10*time.Millisecond, "length of a turn")
	match := flag.String("match", "", "only shapes whose row contains this")
	flag.Parse()
	if err := run(*library, *cpu, *match, *rounds, *turn); err != nil {
		fmt.Fprintln(os.Stderr, "sgemm:", err)
		os.Exit(1)
	}
}

func run(library, cpu, match string, rounds int, turn time.Duration) error {
	if cpu != "" {
		if err := kernel.Use(cpu); err != nil {
			return err
		}
	}
	about, err := openBLAS(library, 1)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	fmt.Printf("%s; %s %s; %s; one thread; medians of %d turns of %v\n\n",
		processor(), runtime.Version(), kernel.Name(), about, rounds, turn)
	fmt.Println("| product | | m | n | k | OpenBLAS GFLOP/s | dlnode GFLOP/s | ratio |")
	fmt.Println("|---|---|--:|--:|--:|--:|--:|--:|")
	var ratios []float64
	for _, s := range shapes() {
		row := fmt.Sprintf("| %s | %v | %d | %d | %d |", s.what, s.kind, s.m, s.n, s.k)
		if !strings.Contains(row, match) {
			continue
		}
		ours, theirs, ratio := s.compare(rounds, turn)
		fmt.Printf("%s %.1f | %.1f | %.2f |\n", row, s.flops()/theirs, s.flops()/ours, ratio)
		ratios = append(ratios, ratio)
	}
	fmt.Printf("\n%s\n", summary(ratios))
	return nil
}

// compare returns the median nanoseconds of one product on either side, and the
// median of theirs/ours over the turns.
func (s shape) compare(rounds int, turn time.Duration) (ours, theirs, ratio float64) {
	a, b := fill(s.m*s.k, 1), fill(s.k*s.n, 2)
	c, want := make([]float32, s.m*s.n), make([]float32, s.m*s.n)
	var scratch kernel.Scratch
	s.blas(1, a, b, want)
	start := time.Now()
	s.kernel(&scratch, 1, a, b, c)
	times := max(1, int(turn/max(1, time.Since(start))))
	if d := distance(c, want); d > 1e-3*math.Sqrt(float64(s.k)) {
		panic(fmt.Sprintf("sgemm: %v: the results differ by %g", s, d))
	}
	once := s.kernel(&scratch, times, a, b, c) // warm
	times = max(1, int(float64(times)*float64(turn)/float64(once)))
	s.blas(times, a, b, want)

	var o, t, r []float64
	for range rounds {
		x := float64(s.kernel(&scratch, times, a, b, c)) / float64(times)
		y := float64(s.blas(times, a, b, want)) / float64(times)
		o, t, r = append(o, x), append(t, y), append(r, y/x)
	}
	return median(o), median(t), median(r)
}

// kernel computes a product that many times.
func (s shape) kernel(scratch *kernel.Scratch, times int, a, b, c []float32) time.Duration {
	f := [...]func(s *kernel.Scratch, m, n, k int, a, b, c []float32, accumulate bool){
		kernel.GemmNN, kernel.GemmNT, kernel.GemmTN,
	}[s.kind]
	start := time.Now()
	for range times {
		f(scratch, s.m, s.n, s.k, a, b, c, false)
	}
	return time.Since(start)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// fill returns numbers between -1 and 1.
func fill(n int, seed uint64) []float32 {
	x := make([]float32, n)
	for i := range x {
		seed = seed*6364136223846793005 + 1442695040888963407
		x[i] = float32(int32(seed>>32)) / (1 << 31)
	}
	return x
}

// distance is the greatest difference of two elements.
func distance(x, y []float32) float64 {
	var d float64
	for i := range x {
		d = max(d, math.Abs(float64(x[i])-float64(y[i])))
	}
	return d
}

func summary(ratios []float64) string {
	if len(ratios) == 0 {
		return "no shape matches"
	}
	var sum float64
	below := 0
	for _, r := range ratios {
		sum += math.Log(r)
		if r < 0.85 {
			below++
		}
	}
	return fmt.Sprintf("%d shapes: geometric mean %.3f, least %.2f, greatest %.2f; below 0.85: %d",
		len(ratios), math.Exp(sum/float64(len(ratios))), slices.Min(ratios), slices.Max(ratios), below)
}

// processor is the CPU's name as Linux tells it.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), ":"))
		}
	}
	return cmp.Or(runtime.GOARCH, "unknown CPU")
}
