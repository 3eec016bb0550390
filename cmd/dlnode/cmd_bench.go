package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/bench"
)

func (m *Main) newBenchCommand() *cobra.Command {
	return group("bench", "Measure the network, and the steps of a job",
		m.newBenchAllreduceCommand(), m.newBenchLinkCommand(), m.newBenchStepCommand(), m.newBenchWorkerCommand())
}

// crewFlags say who is measured.
type crewFlags struct {
	workers []string
	threads int
	json    string
}

func (f *crewFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringSliceVar(&f.workers, "workers", nil, "`host:port` of each 'dlnode bench worker' to measure, comma-separated (default\nprocesses of this machine, started for it)")
	fl.IntVar(&f.threads, "threads", 0, "threads of each process that is started (default its share of the CPUs)")
	fl.StringVar(&f.json, "json", "", "`file` to write all of it to, as JSON")
}

func (f *crewFlags) check() error {
	switch {
	case f.threads < 0:
		return usage("--threads: %d is not allowed (want at least 1, or 0 for a share of the CPUs)", f.threads)
	case f.threads > 0 && len(f.workers) > 0:
		return usage("--threads goes with processes that are started here: workers have theirs")
	case len(f.workers) == 1:
		return usage("--workers: one has nobody to talk to (want at least 2)")
	}
	return nil
}

// conduct runs f with the workers that are named, or else with n processes of this
// machine.
func (m *Main) conduct(ctx context.Context, f crewFlags, n int, do func(context.Context, *bench.Conductor) error) error {
	with := func(ctx context.Context, workers []bench.Worker) error {
		c, err := bench.Conduct(ctx, workers)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(ctx, c)
	}
	if len(f.workers) > 0 {
		var workers []bench.Worker
		for _, addr := range f.workers {
			workers = append(workers, bench.Worker{Name: addr, Addr: addr})
		}
		return with(ctx, workers)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program, to start it as a worker: %w", err)
	}
	if f.threads == 0 {
		f.threads = max(1, runtime.NumCPU()/n)
	}
	return bench.Local(ctx, bench.LocalConfig{Program: program, Env: m.Env, Workers: n, Threads: f.threads}, with)
}

// benchProgress says on standard error what is measured now.
func (m *Main) benchProgress(text string) { fmt.Fprintln(m.Stderr, text) }

// report is what a measurement comes to.
type report interface{ WriteTable(io.Writer) error }

// tellReport prints a report, and writes it to a file if one is named. What was measured
// before an error is told, too.
func (m *Main) tellReport(r report, file string, failed error) error {
	err := errors.Join(failed, r.WriteTable(m.Stdout))
	if file == "" || failed != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// --- allreduce ---

type benchAllreduceFlags struct {
	crewFlags
	nodes  []int
	sizes  []string
	kinds  []string
	time   time.Duration
	rounds int
	tls    bool
	rate   string
	local  string
}

// transports are the values of --transport.
var transports = map[string]rpc.Transport{"memory": rpc.SharedMemory, "unix": rpc.UnixSocket, "tcp": rpc.TCP}

func (m *Main) newBenchAllreduceCommand() *cobra.Command {
	var f benchAllreduceFlags
	c := &cobra.Command{
		Use:   "allreduce",
		Short: "Measure the all-reduce of a step, by size and number of nodes",
		Long: "allreduce measures how long a step's gradients take to become their mean on all nodes,\n" +
			"and what raw sockets take along the same ring. It starts processes of this machine, or\n" +
			"measures machines on each of which 'dlnode bench worker' runs:\n\n" +
			"  train  rounding, the counts and sums of the header, the ring, the mean, the checks:\n" +
			"         all that training does between the gradient and its mean\n" +
			"  bare   the ring alone, from integers to the mean\n" +
			"  tcp    the bytes of a float32 ring all-reduce through bare sockets\n" +
			"  unix   the same through unix sockets, among processes of one machine\n\n" +
			"Sizes count 4 bytes for each element. algbw is size/mean and busbw algbw·2(n-1)/n, as\n" +
			"nccl-tests define them; CPU seconds are those of all nodes. Kinds take turns.",
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error { return m.benchAllreduce(c.Context(), f) },
	}
	f.add(c)
	fl := c.Flags()
	fl.IntSliceVarP(&f.nodes, "nodes", "n", nil, "`numbers` of nodes, comma-separated (default 2,4, or all workers)")
	fl.StringSliceVar(&f.sizes, "sizes", []string{"4KiB", "64KiB", "1MiB", "4MiB", "16MiB", "64MiB"}, "`sizes` of the gradient, comma-separated")
	fl.StringSliceVar(&f.kinds, "kinds", []string{"train", "bare", "tcp"}, "`kinds` to measure, comma-separated: train, bare, tcp, unix")
	fl.DurationVar(&f.time, "time", time.Second, "how long each kind is measured at each size; at least 5 ops are")
	fl.IntVar(&f.rounds, "rounds", 3, "turns that this time is cut into")
	fl.BoolVar(&f.tls, "tls", false, "encrypt train and bare, with a certificate made for it")
	fl.StringVar(&f.local, "transport", "memory", "the `quickest` way that train and bare may take within a machine: memory, unix or tcp")
	fl.StringVar(&f.rate, "rate", "", "`bits` per second of the links, as in 10G, to tell what share of them is used")
	return c
}

// sweep is what the flags ask for.
func (m *Main) sweep(f benchAllreduceFlags) (s bench.Sweep, err error) {
	local, known := transports[f.local]
	s = bench.Sweep{Worlds: f.nodes, Time: f.time, Rounds: f.rounds, TLS: f.tls, Local: local, Progress: m.benchProgress}
	switch {
	case f.time <= 0 || f.time > time.Hour:
		return s, usage("--time: %v is not allowed (want more than 0, at most 1h)", f.time)
	case !known:
		return s, usage("--transport: %q is not allowed (want memory, unix or tcp)", f.local)
	case f.rounds < 1:
		return s, usage("--rounds: %d is not allowed (want at least 1)", f.rounds)
	}
	if len(s.Worlds) == 0 {
		if s.Worlds = []int{2, 4}; len(f.workers) > 0 {
			s.Worlds = []int{len(f.workers)}
		}
	}
	for _, n := range s.Worlds {
		if most := len(f.workers); n < 2 || most > 0 && n > most {
			return s, usage("--nodes: %d is not allowed (want at least 2%s)", n, atMost(most))
		}
	}
	for _, text := range f.sizes {
		n, err := bench.ParseSize(text)
		if err == nil && (n%4 != 0 || n > 512<<20) {
			err = fmt.Errorf("%s is not allowed (want a multiple of 4, at most 512MiB)", text)
		}
		if err != nil {
			return s, usage("--sizes: %w", err)
		}
		s.Sizes = append(s.Sizes, n)
	}
	for _, text := range f.kinds {
		if !slices.Contains(bench.Kinds, bench.Kind(text)) {
			return s, usage("--kinds: %q is not allowed (want some of train, bare, tcp, unix)", text)
		}
		s.Kinds = append(s.Kinds, bench.Kind(text))
	}
	if len(s.Sizes) == 0 || len(s.Kinds) == 0 {
		return s, usage("--sizes and --kinds: nothing to measure")
	}
	s.Rate, err = bitRate(f.rate)
	return s, err
}

// atMost is the second half of a sentence about a number of workers, if there are some.
func atMost(workers int) string {
	if workers == 0 {
		return ""
	}
	return fmt.Sprintf(", at most the %d workers", workers)
}

// bitRate reads 10G and the like; "" is 0.
func bitRate(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	factor, number := 1.0, text
	for unit, f := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			factor, number = f, n
		}
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || !(x*factor >= 1 && x*factor <= 1e15) {
		return 0, usage("--rate: %q is not allowed (want bits per second, as in 1e9, 100M or 10G)", text)
	}
	return x * factor, nil
}

func (m *Main) benchAllreduce(ctx context.Context, f benchAllreduceFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	s, err := m.sweep(f)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	var all *bench.Report
	for _, world := range s.Worlds { // each with processes of its own, which share the CPUs
		s := s
		s.Worlds = []int{world}
		var r *bench.Report
		err = m.conduct(ctx, f.crewFlags, world, func(ctx context.Context, c *bench.Conductor) (err error) {
			r, err = c.Run(ctx, s)
			return err
		})
		switch {
		case r == nil:
		case all == nil:
			all = r
		default:
			all.Workers, all.Rows = r.Workers, append(all.Rows, r.Rows...)
		}
		if err != nil {
			break
		}
	}
	if all == nil {
		return err
	}
	return m.tellReport(all, f.json, err)
}

// --- link ---

func (m *Main) newBenchLinkCommand() *cobra.Command {
	var f crewFlags
	var nodes int
	var during time.Duration
	c := &cobra.Command{
		Use:   "link",
		Short: "Measure how good the links between nodes are",
		Long: "link measures, in each direction, how long a small message takes there and back and what\n" +
			"comes through: by bare TCP, and by the calls that nodes have for each other, a ping and\n" +
			"the copy of a state. Up to 4 workers are measured in all pairs, more of them along the\n" +
			"ring. Run 'dlnode bench worker' on each machine.",
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error { return m.benchLink(c.Context(), f, nodes, during) },
	}
	f.add(c)
	c.Flags().IntVarP(&nodes, "nodes", "n", 2, "how many processes to start, without --workers")
	c.Flags().DurationVar(&during, "time", 4*time.Second, "how long each direction of a link is measured")
	return c
}

func (m *Main) benchLink(ctx context.Context, f crewFlags, nodes int, during time.Duration) error {
	if err := f.check(); err != nil {
		return err
	}
	switch {
	case nodes < 2:
		return usage("--nodes: %d is not allowed (want at least 2)", nodes)
	case during <= 0 || during > time.Hour:
		return usage("--time: %v is not allowed (want more than 0, at most 1h)", during)
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	return m.conduct(ctx, f, nodes, func(ctx context.Context, c *bench.Conductor) error {
		r, err := c.Links(ctx, during, m.benchProgress)
		return m.tellReport(r, f.json, err)
	})
}

// --- worker ---

type benchWorkerFlags struct {
	bind, profile        string
	threads              int
	insecure, supervised bool
}

func (m *Main) newBenchWorkerCommand() *cobra.Command {
	var f benchWorkerFlags
	c := &cobra.Command{
		Use:   "worker",
		Short: "Be measured by 'bench allreduce' or 'bench link' of another machine",
		Long: "worker waits for 'dlnode bench allreduce --workers' or 'dlnode bench link --workers', as\n" +
			"often as they come, until it is interrupted. What is measured takes free ports of the\n" +
			"same address. Whoever reaches a worker can keep this machine busy.",
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error { return m.benchWorker(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.bind, "bind", "127.0.0.1:7950", "`host:port` under which others reach this machine")
	fl.IntVar(&f.threads, "threads", 0, "threads of an all-reduce (default the number of CPUs)")
	fl.BoolVar(&f.insecure, "insecure", false, "allow other addresses than loopback")
	fl.BoolVar(&f.supervised, "supervised", false, "end when standard input ends")
	fl.StringVar(&f.profile, "profile", "", "`file` to write a CPU profile to")
	return c
}

func (m *Main) benchWorker(ctx context.Context, f benchWorkerFlags) (failed error) {
	switch {
	case f.threads < 0:
		return usage("--threads: %d is not allowed (want at least 1, or 0 for the number of CPUs)", f.threads)
	case f.threads == 0:
		f.threads = runtime.NumCPU()
	}
	l, err := net.Listen("tcp", f.bind)
	if err != nil {
		return fmt.Errorf("--bind: %w", err)
	}
	ip := l.Addr().(*net.TCPAddr).IP
	switch {
	case ip.IsUnspecified():
		err = usage("--bind: %s is no address that others could reach: name the one of this machine", f.bind)
	case !ip.IsLoopback() && !f.insecure:
		err = usage("--bind: %s can be reached by others, who could keep this machine busy: allow that with --insecure", f.bind)
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := m.untilAsked(ctx, runFlags{supervised: f.supervised})
	defer stop()
	profiled, err := profile(f.profile)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { failed = errors.Join(failed, profiled()) }()
	if f.supervised {
		err = json.NewEncoder(m.Stdout).Encode(bench.Ready{Addr: l.Addr().String()})
	} else {
		_, err = fmt.Fprintf(m.Stdout, "listens at %s\n", l.Addr())
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return bench.Work(ctx, bench.WorkerConfig{
		Listener: l, Threads: f.threads, Program: release() + ", " + runtime.Version(), Kernels: kernels(),
		Log: slog.New(slog.NewTextHandler(m.Stderr, nil)),
	})
}

// profile writes a CPU profile until it is told to end; "" means none.
func profile(file string) (end func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("--profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
