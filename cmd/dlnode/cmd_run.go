package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cluster"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// runFlags are the flags of dlnode run.
type runFlags struct {
	name, bind, grpc, advertise, advertiseGRPC, secretFile, label, zone string
	join                                                                []string
	insecure, events, supervised                                        bool
	dir, checkpoints, fork, logFormat, logLevel                         string
	threads, minNodes, expect                                           int
	expectFor                                                           time.Duration
	data                                                                dataFlags
}

func (m *Main) newRunCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run job.yaml",
		Short: "Be one node of a cluster and train",
		Long: "run trains as one node. It looks for the others by --join, takes its share of every\n" +
			"step, and ends with the run. On SIGTERM it completes the step in hand, hands over and\n" +
			"exits with status 0; started again it resumes. Without --join it trains alone, until\n" +
			"others join it.",
		Args: takes("job.yaml"),
		RunE: func(c *cobra.Command, args []string) error { return m.run(c.Context(), args[0], f) },
	}
	host, _ := os.Hostname() // empty is refused below, with a hint
	fl := c.Flags()
	fl.StringVar(&f.name, "name", host, "this node's `ID`; unique in the cluster, kept over restarts")
	fl.StringVar(&f.bind, "bind", "127.0.0.1:0", "`host:port` of the gossip, UDP and TCP; port 0 takes a free one")
	fl.StringVar(&f.grpc, "grpc", "", "`host:port` of the gRPC server (default the gossip's host, a free port)")
	fl.StringVar(&f.advertise, "advertise", "", "`host` or host:port under which others reach the gossip, if not that of --bind")
	fl.StringVar(&f.advertiseGRPC, "advertise-grpc", "", "`host:port` under which others reach the gRPC server, if not that of --grpc")
	fl.StringSliceVar(&f.join, "join", nil, "`host:port` of nodes to find, comma-separated; a DNS name stands for all its addresses")
	fl.StringVar(&f.secretFile, "secret-file", "", "`file` with the secret that encrypts the gossip (or DLNODE_SECRET)")
	fl.BoolVar(&f.insecure, "insecure", false, "allow other addresses than loopback without a secret")
	fl.StringVar(&f.label, "label", "", "`name` of the cluster, where several share a network")
	fl.StringVar(&f.zone, "zone", "", "`name` of the rack or region: nodes of a zone are neighbours in the ring")
	fl.StringVar(&f.dir, "dir", "", "run `directory` of this node (default runs/JOB/NAME)")
	fl.StringVar(&f.checkpoints, "checkpoints", "", "`directory` of checkpoints; several nodes may share one (default the job's checkpoint.dir in --dir)")
	fl.IntVar(&f.threads, "threads", 0, "microbatches computed at the same time (default the number of CPUs)")
	fl.IntVar(&f.minNodes, "min-nodes", 0, "nodes below which training waits (default the job's min_nodes)")
	fl.IntVar(&f.expect, "expect", 0, "nodes to wait for before the very first step")
	fl.DurationVar(&f.expectFor, "expect-for", 10*time.Second, "how long to wait for them")
	fl.StringVar(&f.fork, "fork", "", "start a new trajectory from the checkpoint in this `directory`")
	f.data.add(c, "those of the other nodes")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.BoolVar(&f.events, "events", false, "print what happens as JSON lines on standard output")
	fl.BoolVar(&f.supervised, "supervised", false, "leave when standard input ends")
	return c
}

func (m *Main) run(ctx context.Context, path string, f runFlags) error {
	log, err := m.logger(f)
	if err != nil {
		return err
	}
	if err := f.validate(); err != nil {
		return err
	}
	j, err := loadJob(path)
	if err != nil {
		return err
	}
	cfg, err := m.runConfig(j, f, log)
	if err != nil {
		return err
	}
	ctx, stop := m.untilAsked(ctx, f)
	defer stop()
	if err := m.runTask(ctx, j, f, &cfg); err != nil {
		return err
	}
	defer m.hearLinks(&cfg)()
	if err := m.forTests(&cfg); err != nil {
		return usage("DLNODE_FLIP: %w", err)
	}
	out := m.lineWriter(f)
	cfg.Line = func(l train.Line) {
		if l.Ready != nil {
			tellKernels(log)
		}
		out.line(l)
	}
	result, err := train.Run(ctx, cfg)
	if err == nil {
		err = out.err
	}
	if err != nil {
		return runError(err)
	}
	if result.Finished && !f.supervised { // else whoever started all the nodes draws them together
		m.leaveCurves(cfg.Dir)
	}
	log.Info(result.Reason, "step", result.Step, "model_sha256", result.ModelSHA256, "waited_for_data", percent(result.Phases.Waiting()))
	return nil
}

// hearLinks has the scheduler listen to links while all threads compute: it looks at
// them when it has nothing to run, or every 10 ms, and a microbatch runs for longer than that. With one
// processor more than threads, what comes is read in microseconds, and the system shares the CPUs out. Who has
// set GOMAXPROCS has chosen otherwise: processes of one launch do, whose links are memory and whose
// steps are short. The function that is returned puts things back.
func (m *Main) hearLinks(cfg *train.Config) (restore func()) {
	was := runtime.GOMAXPROCS(0)
	cfg.Threads = cmp.Or(cfg.Threads, was)
	if m.getenv("GOMAXPROCS") != "" || cfg.Threads < was {
		return func() {}
	}
	runtime.GOMAXPROCS(cfg.Threads + 1)
	return func() { runtime.GOMAXPROCS(was) }
}

// tellKernels says at the start what will do the computing; aloud if it is slow.
func tellKernels(log *slog.Logger) {
	level := slog.LevelInfo
	if kernel.Lacks() != "" {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "kernels: "+kernels())
}

// validate tells which number can't be. 0 stands for the default.
func (f runFlags) validate() error {
	for _, n := range []struct {
		flag  string
		value int
	}{{"threads", f.threads}, {"min-nodes", f.minNodes}, {"expect", f.expect}} {
		if n.value < 0 {
			return usage("--%s: %d is not allowed (want at least 0, which stands for the default)", n.flag, n.value)
		}
	}
	return nil
}

// runError gives the errors of a run their exit codes.
func runError(err error) error {
	switch {
	case errors.As(err, new(*train.StrangerError)), errors.As(err, new(*train.OtherTrajectoryError)), errors.Is(err, cluster.ErrSecret):
		return exit(codeForeign, err)
	case errors.As(err, new(*train.FatalError)):
		return exit(codeFatal, err)
	case errors.As(err, new(*train.ExpelledError)):
		return exit(codeExpelled, err)
	case errors.As(err, new(*train.ConfigError)):
		return exit(codeUsage, err)
	}
	return err
}

func (m *Main) runConfig(j *job.Job, f runFlags, log *slog.Logger) (train.Config, error) {
	secret, err := m.secret(f.secretFile)
	if err != nil {
		return train.Config{}, err
	}
	dir := f.dir
	if dir == "" {
		dir = filepath.Join("runs", j.Name, f.name)
	}
	checkpoints := f.checkpoints
	if checkpoints == "" {
		checkpoints = j.Checkpoint.Dir
		if !filepath.IsAbs(checkpoints) {
			checkpoints = filepath.Join(dir, checkpoints)
		}
	}
	return train.Config{
		Gossip: cluster.Config{
			Name: f.name, Bind: f.bind, Advertise: f.advertise, Secret: secret, Insecure: f.insecure, Label: f.label, Join: f.join,
		},
		GRPC: f.grpc, AdvertiseGRPC: f.advertiseGRPC, Zone: f.zone, Dir: dir, Checkpoints: checkpoints, Threads: f.threads,
		MinNodes: f.minNodes, Expect: f.expect, ExpectFor: f.expectFor, Log: log,
	}, nil
}

// secret reads the key of the gossip from a file, or else the environment.
func (m *Main) secret(file string) ([]byte, error) {
	if file == "" {
		return []byte(m.getenv("DLNODE_SECRET")), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("--secret-file: %w", err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return nil, usage("--secret-file: %s is empty", file)
	}
	return []byte(s), nil
}

func (m *Main) logger(f runFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usage("--log-level: %q is not allowed (want debug, info, warn or error)", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(m.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(m.Stderr, o)), nil
	}
	return nil, usage("--log-format: %q is not allowed (want text or json)", f.logFormat)
}

// untilAsked returns a context that ends when the node is asked to leave: by
// SIGTERM or Ctrl-C, or by the death of the process that supervises it.
func (m *Main) untilAsked(ctx context.Context, f runFlags) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	if f.supervised {
		parent := ctx
		leave, cancel := context.WithCancel(parent)
		ctx = leave
		// The goroutine ends with standard input, which nobody can interrupt.
		go func() {
			supervise.AwaitParent(m.Stdin)
			cancel()
		}()
	}
	return ctx, stop
}

// lineWriter prints lines for the parent; a parent that reads no more is an
// error, told at the end.
type lineWriter struct {
	mu  sync.Mutex
	enc *json.Encoder
	err error
}

func (m *Main) lineWriter(f runFlags) *lineWriter {
	w := &lineWriter{}
	if f.events {
		w.enc = json.NewEncoder(m.Stdout)
	}
	return w
}

func (w *lineWriter) line(l train.Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.enc == nil || w.err != nil {
		return
	}
	if err := w.enc.Encode(l); err != nil {
		w.err = fmt.Errorf("standard output: %w", err)
	}
}
