// Command kernels times every kernel in each variant that this CPU runs, in turns,
// and prints a table in Markdown: what portability costs.
//
//	cd bench && go run ./kernels
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dlnode/dlnode/internal/kernel"
)

// row is one kernel on data that fits the second-level cache.
type row struct {
	name string
	unit string  // of work
	work float64 // units a call
	run  func()
}

func main() {
	rounds := flag.Int("rounds", 7, "turns of each variant")
	turn := flag.Duration("turn", 5*time.Millisecond, "length of a turn")
	flag.Parse()
	runtime.LockOSThread()
	names := kernel.Variants()
	fmt.Printf("%s; %s; one thread; medians of %d turns of %v of its CPU time\n\n", processor(), runtime.Version(), *rounds, *turn)
	fmt.Printf("| kernel | unit | %s | %s / generic |\n", strings.Join(names, " | "), names[0])
	fmt.Printf("|---|---|%s--:|\n", strings.Repeat("--:|", len(names)))
	for _, r := range rows() {
		speed, err := r.measure(names, *rounds, *turn)
		if err != nil {
			fmt.Fprintln(os.Stderr, "kernels:", err)
			os.Exit(1)
		}
		fmt.Printf("| %s | %s |", r.name, r.unit)
		for _, s := range speed {
			fmt.Printf(" %.3g |", s)
		}
		fmt.Printf(" %.1f |\n", speed[0]/speed[len(speed)-1])
	}
}

// measure returns units a nanosecond for each variant.
func (r row) measure(names []string, rounds int, turn time.Duration) ([]float64, error) {
	took := make([][]float64, len(names))
	for range rounds {
		for i, name := range names {
			if err := kernel.Use(name); err != nil {
				return nil, err
			}
			calls, spent, err := r.spend(turn)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], float64(spent.Nanoseconds())/float64(calls))
		}
	}
	var speed []float64
	for _, t := range took {
		slices.Sort(t)
		speed = append(speed, r.work/t[len(t)/2])
	}
	return speed, nil
}

// spend runs a row for so long, and looks at the clock, a system call, hardly more
// often than every 100 µs.
func (r row) spend(turn time.Duration) (calls int, spent time.Duration, err error) {
	begin := time.Now()
	r.run() // warm
	many := 1 + int(100*time.Microsecond/(1+time.Since(begin)))
	start, err := threadTime()
	for err == nil && spent < turn {
		for range many {
			r.run()
		}
		calls += many
		var now time.Duration
		now, err = threadTime()
		spent = now - start
	}
	return calls, spent, err
}

// threadTime is how long the CPU has worked for this thread: a turn that others
// interrupt is no longer for that.
func threadTime() (time.Duration, error) {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

const n = 16384

func rows() []row {
	var s kernel.Scratch
	x, y, z, v := fill(4*n), fill(4*n), fill(4*n), fill(4*n)
	acc, sum := make([]float64, n), make([]float64, n)
	x, y, z, v = x[:n:n], y[:n:n], z[:n:n], v[:n:n]
	product := func(name string, m, n, k int, f func(s *kernel.Scratch, m, n, k int, a, b, c []float32, accumulate bool)) row {
		a, b, c := fill(m*k), fill(k*n), make([]float32, m*n)
		return row{fmt.Sprintf("%s %d×%d×%d", name, m, n, k), "GFLOP/s", 2 * float64(m*n*k), func() { f(&s, m, n, k, a, b, c, false) }}
	}
	vector := func(name string, f func()) row { return row{name, "elements/ns", n, f} }
	rows := []row{
		product("GemmNN", 128, 128, 784, kernel.GemmNN),
		product("GemmNT", 128, 128, 784, kernel.GemmNT),
		product("GemmTN", 784, 128, 128, kernel.GemmTN),
		product("GemmNN", 32, 10, 128, kernel.GemmNN),
		product("GemmTN", 128, 10, 32, kernel.GemmTN),
	}
	rows = append(rows, convolutions(&s)...)
	const units = 128
	gates, rest := fill(4*32*units), [5][]float32{}
	for i := range rest {
		rest[i] = fill(32 * units)
	}
	pool := kernel.Pool{H: 24, W: 24, C: 64, KH: 2, KW: 2, SH: 2, SW: 2, OH: 12, OW: 12}
	image, small, arg := fill(24*24*64), fill(12*12*64), fill(12*12*64)
	return append(rows,
		row{"LSTMForward 32×128", "units/ns", 32 * units, func() { kernel.LSTMForward(units, gates, rest[0], rest[1], rest[2], rest[3]) }},
		row{"LSTMBackward 32×128", "units/ns", 32 * units, func() { kernel.LSTMBackward(units, gates, rest[0], rest[2], rest[3], rest[4]) }},
		row{"GRUForward 32×128", "units/ns", 32 * units, func() { kernel.GRUForward(units, gates[:3*32*units], rest[0], rest[1], rest[2]) }},
		row{"GRUBackward 32×128", "units/ns", 32 * units, func() { kernel.GRUBackward(units, gates[:3*32*units], rest[0], rest[1], rest[4]) }},
		row{"Pool.Max 2×2 of 24×24×64", "elements/ns", 24 * 24 * 64, func() { pool.Max(image, small, arg) }},
		row{"Pool.MaxGrad", "elements/ns", 24 * 24 * 64, func() { pool.MaxGrad(small, arg, image) }},
		row{"Pool.Average", "elements/ns", 24 * 24 * 64, func() { pool.Average(image, small) }},
		row{"Pool.AverageGrad", "elements/ns", 24 * 24 * 64, func() { pool.AverageGrad(small, image) }},
		vector("Exp", func() { kernel.Exp(z, x) }),
		vector("Log", func() { kernel.Log(z, x) }),
		vector("Tanh", func() { kernel.Tanh(z, x) }),
		vector("Sigmoid", func() { kernel.Sigmoid(z, x) }),
		vector("ELU", func() { kernel.ELU(z, x) }),
		vector("GELU", func() { kernel.GELU(z, x) }),
		vector("Swish", func() { kernel.Swish(z, x) }),
		vector("LeakyReLU", func() { kernel.LeakyReLU(z, x, 0.2) }),
		vector("ReLU", func() { kernel.ReLU(z, x) }),
		vector("ReLUGrad", func() { kernel.ReLUGrad(z, x, y) }),
		vector("SigmoidGrad", func() { kernel.SigmoidGrad(z, x, y) }),
		vector("TanhGrad", func() { kernel.TanhGrad(z, x, y) }),
		vector("ELUGrad", func() { kernel.ELUGrad(z, x, y) }),
		vector("GELUGrad", func() { kernel.GELUGrad(z, x, y) }),
		vector("SwishGrad", func() { kernel.SwishGrad(z, x, y) }),
		vector("LeakyReLUGrad", func() { kernel.LeakyReLUGrad(z, x, y, 0.2) }),
		vector("Multiply", func() { kernel.Multiply(z, x, y) }),
		vector("AddBias", func() { kernel.AddBias(z, x) }),
		vector("Sum", func() { kernel.Sum(x) }),
		vector("Max", func() { kernel.Max(x) }),
		vector("Transpose", func() { kernel.Transpose(z, x, 128) }),
		vector("MaxExponent", func() { kernel.MaxExponent(x) }),
		vector("RoundAdd", func() { kernel.RoundAdd(acc, x, 1) }),
		vector("AddF64", func() { kernel.AddF64(acc, sum) }),
		vector("Adam", func() { kernel.Adam(y, x, z, v, 1e-3, 0.9, 0.999, 1e-7, 2, 2, 0) }),
		vector("Momentum", func() { kernel.Momentum(y, x, v, 1e-3, 0.9, false) }),
		vector("RMSprop", func() { kernel.RMSprop(y, x, v, 1e-3, 0.9, 1e-7) }),
	)
}

func convolutions(s *kernel.Scratch) []row {
	g := kernel.Conv{H: 26, W: 26, C: 32, KH: 3, KW: 3, F: 64, SH: 1, SW: 1, OH: 24, OW: 24}
	x, w, y := fill(g.H*g.W*g.C), fill(g.KH*g.KW*g.C*g.F), fill(g.OH*g.OW*g.F)
	flipped, dx := make([]float32, len(w)), make([]float32, len(x))
	flops := 2 * float64(g.OH*g.OW*g.F*g.KH*g.KW*g.C)
	g.Flip(flipped, w)
	return []row{
		{"Conv.Forward 3×3 26×26×32→64", "GFLOP/s", flops, func() { g.Forward(s, x, w, nil, true, y) }},
		{"Conv.WeightGrad", "GFLOP/s", flops, func() { g.WeightGrad(s, x, y, w, false) }},
		{"Conv.InputGrad", "GFLOP/s", flops, func() { g.InputGrad(s, y, flipped, dx) }},
	}
}

// fill returns numbers between 0 and 1.
func fill(n int) []float32 {
	x := make([]float32, n)
	seed := uint64(n)
	for i := range x {
		seed = seed*6364136223846793005 + 1442695040888963407
		x[i] = float32(seed>>40) / (1 << 24)
	}
	return x
}

// processor is the CPU's name as Linux tells it.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), ":"))
		}
	}
	return runtime.GOARCH
}
