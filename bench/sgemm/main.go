// Command sgemm times the products of package kernel against OpenBLAS, in one
// process and in turns, and prints a table in Markdown:
//
//	cd bench && go run ./sgemm -threads 1
//
// The kernels take one thread. With more it is package gonumblas, which shares
// products out, that is timed.
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

	"gonum.org/v1/gonum/blas"

	"github.com/dlnode/dlnode/gonumblas"
	"github.com/dlnode/dlnode/internal/kernel"
)

func main() {
	library := flag.String("openblas", "libopenblas.so.0", "the library to load")
	cpu := flag.String("cpu", "", "our variant: "+strings.Join(kernel.Variants(), ", "))
	rounds := flag.Int("rounds", 9, "turns of each side")
	turn := flag.Duration("turn", 10*time.Millisecond, "length of a turn")
	match := flag.String("match", "", "only shapes whose row contains this")
	threads := flag.Int("threads", 1, "threads of either side")
	flag.Parse()
	if err := run(*library, *cpu, *match, *threads, *rounds, *turn); err != nil {
		fmt.Fprintln(os.Stderr, "sgemm:", err)
		os.Exit(1)
	}
}

func run(library, cpu, match string, threads, rounds int, turn time.Duration) error {
	if cpu != "" {
		if err := kernel.Use(cpu); err != nil {
			return err
		}
	}
	about, err := openBLAS(library, threads)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(threads)
	fmt.Printf("%s; %s %s; %s; threads: %d; medians of %d turns of %v\n\n",
		processor(), runtime.Version(), kernel.Name(), about, threads, rounds, turn)
	b := bench{threads: threads, rounds: rounds, turn: turn}
	fmt.Println("| product | | m | n | k | OpenBLAS GFLOP/s | dlnode GFLOP/s | ratio |")
	fmt.Println("|---|---|--:|--:|--:|--:|--:|--:|")
	var ratios []float64
	for _, s := range shapes() {
		row := fmt.Sprintf("| %s | %v | %d | %d | %d |", s.what, s.kind, s.m, s.n, s.k)
		if !strings.Contains(row, match) {
			continue
		}
		ours, theirs, ratio := b.compare(s)
		fmt.Printf("%s %.1f | %.1f | %.2f |\n", row, s.flops()/theirs, s.flops()/ours, ratio)
		ratios = append(ratios, ratio)
	}
	fmt.Printf("\n%s\n", summary(ratios))
	return nil
}

// bench is how products are timed.
type bench struct {
	threads int
	rounds  int
	turn    time.Duration
	scratch kernel.Scratch
}

// compare returns the median nanoseconds of one product on either side, and the
// median of theirs/ours over the turns.
func (h *bench) compare(s shape) (ours, theirs, ratio float64) {
	a, b := fill(s.m*s.k, 1), fill(s.k*s.n, 2)
	c, want := make([]float32, s.m*s.n), make([]float32, s.m*s.n)
	s.blas(1, a, b, want)
	start := time.Now()
	h.kernel(s, 1, a, b, c)
	times := max(1, int(h.turn/max(1, time.Since(start))))
	if d := distance(c, want); d > 1e-3*math.Sqrt(float64(s.k)) {
		panic(fmt.Sprintf("sgemm: %v: the results differ by %g", s, d))
	}
	once := h.kernel(s, times, a, b, c) // warm
	times = max(1, int(float64(times)*float64(h.turn)/float64(once)))
	s.blas(times, a, b, want)

	var o, t, r []float64
	for range h.rounds {
		h.rest()
		x := float64(h.kernel(s, times, a, b, c)) / float64(times)
		y := float64(s.blas(times, a, b, want)) / float64(times)
		o, t, r = append(o, x), append(t, y), append(r, y/x)
	}
	return median(o), median(t), median(r)
}

// rest lets OpenBLAS' threads fall asleep: they look for work for another 2^26
// cycles after each product, on the CPU that our second thread is to use.
func (h *bench) rest() {
	if h.threads > 1 {
		time.Sleep(60 * time.Millisecond)
	}
}

// kernel computes a product that many times.
func (h *bench) kernel(s shape, times int, a, b, c []float32) time.Duration {
	f := [...]func(s *kernel.Scratch, m, n, k int, a, b, c []float32, accumulate bool){
		kernel.GemmNN, kernel.GemmNT, kernel.GemmTN,
	}[s.kind]
	start := time.Now()
	for range times {
		if h.threads > 1 {
			s.shared(a, b, c)
			continue
		}
		f(&h.scratch, s.m, s.n, s.k, a, b, c, false)
	}
	return time.Since(start)
}

// shared computes a product as gonum calls it.
func (s shape) shared(a, b, c []float32) {
	tA, tB, lda, ldb := blas.NoTrans, blas.NoTrans, s.k, s.n
	switch s.kind {
	case nt:
		tB, ldb = blas.Trans, s.k
	case tn:
		tA, lda = blas.Trans, s.m
	}
	gonumblas.Implementation{}.Sgemm(tA, tB, s.m, s.n, s.k, 1, a, lda, b, ldb, 0, c, s.n)
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
