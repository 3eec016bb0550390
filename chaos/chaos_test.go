//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	seed    = flag.Uint64("seed", 1, "of the script")
	faults  = flag.Int("faults", 0, "of the script; 0 plays none")
	every   = flag.Duration("every", 2500*time.Millisecond, "from one fault to the next, in the mean")
	nodes   = flag.Int("nodes", 5, "that take part, at least 3")
	only    = flag.String("kinds", "", "of faults, comma-separated; all that can be played")
	where   = flag.String("ground", "", "netns or loopback; the first of them that can be made")
	epochs  = flag.Int("epochs", 0, "of the job; 0 for as many as outlive the script, by what nodes do at first")
	program = flag.String("program", "../bin/dlnode", "that is run")
	dir     = flag.String("dir", "", "where the run is written; of temporary directories one, which is kept if anything is wrong")
)

// Issue: a real job, real processes, real faults, one hash. make chaos.
func TestChaos(t *testing.T) {
	if *faults == 0 {
		t.Skip("plays nothing without -faults; see make chaos")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := config(t)
	fmt.Printf("make chaos SEED=%d FAULTS=%d EVERY=%v NODES=%d KINDS=%s GROUND=%s\n", *seed, *faults, *every, *nodes, *only, *where)
	report, err := Run(ctx, cfg)
	if err == nil {
		err = leave(cfg.Dir, report)
	}
	if err != nil || len(report.Troubles) > 0 {
		explain(cfg)
		t.Fatalf("seed %d: %v; what it left: %s", *seed, err, cfg.Dir)
	}
	if *dir == "" {
		if err := os.RemoveAll(cfg.Dir); err != nil {
			t.Error(err)
		}
	}
}

func config(t *testing.T) Config {
	t.Helper()
	cfg := Config{Options: Options{Seed: *seed, Faults: *faults, Every: *every, Nodes: *nodes}, Ground: *where, Dir: *dir, Job: Synthetic()}
	for _, k := range strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }) {
		cfg.Kinds = append(cfg.Kinds, Kind(k))
	}
	path, err := filepath.Abs(*program)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Program = path; cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "dlnode-chaos-"); err != nil {
			t.Fatal(err)
		}
	} else if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if data := os.Getenv("DLNODE_TEST_DATA"); data != "" {
		if _, err := os.Stat(filepath.Join(data, "mnist")); err == nil {
			cfg.Job, cfg.Env = MNIST(), []string{"DLNODE_DATA=" + data}
		}
	}
	cfg.Job.Epochs = *epochs
	began := time.Now()
	cfg.Log = func(format string, args ...any) {
		fmt.Printf("%7.1f  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	return cfg
}

// leave prints a report, and leaves it in the run's directory.
func leave(dir string, r *Report) error {
	fmt.Println()
	if err := r.Write(os.Stdout); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.json"), b, 0o644)
}

// explain prints the script, and the story that the journals tell.
func explain(cfg Config) {
	script, err := os.ReadFile(filepath.Join(cfg.Dir, "script.txt"))
	fmt.Printf("\nthe script (%v)\n%s\n", err, script)
	out, err := exec.Command(cfg.Program, "explain", filepath.Join(cfg.Dir, "nodes")).CombinedOutput()
	fmt.Printf("dlnode explain %s (%v)\n%s\n", filepath.Join(cfg.Dir, "nodes"), err, out)
}
