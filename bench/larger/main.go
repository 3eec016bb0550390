// Command larger trains on packed images that are several times larger than the
// memory of the process may be, and on as few as fit, and compares the rates.
//
//	go run ./larger                    the network of the case study, and one that is bound by reading
//	go run ./larger -models light      only that
//
// The process runs in a cgroup of its own (version 1 or 2) whose limit counts the
// page cache, too, so that what it has read does not stay in memory for nothing.
// Making one takes root, or a cgroup that was handed over to the user. Both sets are
// dropped from the page cache before each turn, and turns alternate.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	limit   int64 // bytes
	times   float64
	fits    float64
	seconds int
	rounds  int
	threads int
	models  []string
	dir     string
}

func main() {
	var o options
	var limit int64
	var models string
	flag.Int64Var(&limit, "limit", 256, "of the process' memory, in MiB")
	flag.Float64Var(&o.times, "times", 4, "how many limits the large set is")
	flag.Float64Var(&o.fits, "fits", 0.25, "which part of the limit the small set is")
	flag.IntVar(&o.seconds, "seconds", 40, "how long a turn trains")
	flag.IntVar(&o.rounds, "rounds", 2, "turns of each set")
	flag.IntVar(&o.threads, "threads", 2, "of the process")
	flag.StringVar(&models, "models", "cnn,light", "which networks")
	flag.StringVar(&o.dir, "dir", "", "where the sets go while this runs (default a temporary directory)")
	flag.Parse()
	o.limit, o.models = limit<<20, strings.Split(models, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // what is made is removed
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "larger:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	for _, m := range o.models {
		if networks[m] == "" {
			return fmt.Errorf("-models: %q is not allowed (want cnn or light)", m)
		}
	}
	group, err := newCgroup(o.limit) // before minutes go by for nothing
	if err == nil {
		err = group.remove()
	}
	if err != nil {
		return fmt.Errorf("no cgroup with a limit of memory can be made here: %w", err)
	}
	work, err := os.MkdirTemp(o.dir, "dlnode-larger-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	program := filepath.Join(work, "dlnode")
	if out, err := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", program, "./cmd/dlnode").CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	fmt.Fprintf(os.Stderr, "packing %.0f and %.0f MB of images\n", o.fits*float64(o.limit)/1e6, o.times*float64(o.limit)/1e6)
	var sets []set
	for _, s := range []set{{name: "fits", bytes: int64(o.fits * float64(o.limit))}, {name: "larger", bytes: int64(o.times * float64(o.limit))}} {
		if err := s.make(ctx, work); err != nil {
			return err
		}
		sets = append(sets, s)
	}
	fmt.Printf("limit %d MiB; sets of %d and %d images of 150×150×3 bytes, %.2f and %.2f times the limit; %d threads; %d turns of %d s each\n\n",
		o.limit>>20, sets[0].images, sets[1].images, o.fits, o.times, o.threads, o.rounds, o.seconds)
	fmt.Println("| network | set | images/s, all of a turn | its second half | waited for data | read from the disk, MB/s | most memory, MiB |")
	fmt.Println("|---|---|--:|--:|--:|--:|--:|")
	for _, m := range o.models {
		if err := compare(ctx, o, m, sets, program, work); err != nil {
			return err
		}
	}
	return nil
}

// compare trains a network on both sets in turns, and prints the rows.
func compare(ctx context.Context, o options, model string, sets []set, program, work string) error {
	turns := map[string][]turn{}
	for range o.rounds {
		for _, s := range sets {
			t, err := train(ctx, o, model, s, program, work)
			if err != nil {
				return fmt.Errorf("%s on the set that %s: %w", model, s.name, err)
			}
			fmt.Fprintf(os.Stderr, "%s, %s: %+v\n", model, s.name, t)
			turns[s.name] = append(turns[s.name], t)
		}
	}
	var all, half []float64
	for _, s := range sets {
		of := turns[s.name]
		a, h := median(of, func(t turn) float64 { return t.rate }), median(of, func(t turn) float64 { return t.half })
		all, half = append(all, a), append(half, h)
		fmt.Printf("| %s | %s | %.4g | %.4g | %.1f %% | %.0f | %.0f |\n", model, s.name, a, h,
			100*median(of, func(t turn) float64 { return t.waited }),
			median(of, func(t turn) float64 { return t.disk })/1e6, median(of, func(t turn) float64 { return t.memory })/(1<<20))
	}
	fmt.Printf("| %s | ratio | **%.2f** | **%.2f** | | | |\n", model, all[1]/all[0], half[1]/half[0])
	return nil
}

func median(all []turn, of func(turn) float64) float64 {
	v := make([]float64, len(all))
	for i, t := range all {
		v[i] = of(t)
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// turnLimit is how much longer than it should a turn may take.
const turnLimit = time.Minute
