package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed peer.py
var script string

// allSwitches are settings of PyTorch that may help, see peer.py.
var allSwitches = []string{"fused", "channels_last", "no_onednn"}

// side is one of those who take turns.
type side struct {
	name     string
	python   string   // "": dlnode
	program  string   // dlnode; "": this one
	prefix   []string // of its command line: where it runs
	switches []string

	rates  []float64 // of the turns, each the median of its windows
	busy   []float64 // CPUs that it had in each
	firsts []float64 // seconds from a process' start to its first step, without Data
	data   []float64
	peak   int64
}

// play lets a fresh process take a turn.
func (s *side) play(t turn) (*report, error) {
	cmd, err := s.command(&t)
	if err != nil {
		return nil, err
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", s.name, err, lastLine(complaint.String()))
	}
	r := new(report)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("%s: its report: %w", s.name, err)
	}
	if len(r.Rates) != t.Windows {
		return nil, fmt.Errorf("%s: %d windows, want %d", s.name, len(r.Rates), t.Windows)
	}
	r.First -= float64(begun.UnixNano()) / 1e9
	return r, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (s *side) command(t *turn) (*exec.Cmd, error) {
	t.Switches = s.switches
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if s.python == "" {
		program := s.program
		if program == "" {
			if program, err = os.Executable(); err != nil {
				return nil, err
			}
		}
		argv := append(slices.Clone(s.prefix), program, "-child", string(arg))
		cmd := exec.Command(argv[0], argv[1:]...)
		procs := t.Threads
		if len(s.prefix) > 0 && !t.alone() {
			procs++ // as dlnode run has it on a machine of its own: links are heard while all threads compute
		}
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
		return cmd, nil
	}
	argv := append(slices.Clone(s.prefix), s.python, "-W", "ignore", "-c", script, string(arg))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = slices.Concat(os.Environ(), tuned(t.Threads), t.environment())
	return cmd, nil
}

// tuned is the environment in which PyTorch is at its best: malloc keeps its
// memory, in huge pages; threads wait actively; and Debian's torch takes the
// OpenBLAS that has its threads from OpenMP, as torch has.
func tuned(threads int) []string {
	n := strconv.Itoa(threads)
	return []string{
		"GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:" +
			"glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456",
		"OMP_NUM_THREADS=" + n, "OPENBLAS_NUM_THREADS=" + n, "MKL_NUM_THREADS=" + n,
		"OMP_WAIT_POLICY=ACTIVE",
		"LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/openblas-openmp:" + os.Getenv("LD_LIBRARY_PATH"),
	}
}

// add takes a turn's report into account.
func (s *side) add(r *report) float64 {
	rate := median(r.Rates)
	s.rates, s.busy = append(s.rates, rate), append(s.busy, r.Busy)
	s.firsts = append(s.firsts, r.First-r.Data)
	s.data = append(s.data, r.Data)
	s.peak = max(s.peak, r.Peak)
	return rate
}

// noticeable is how much faster PyTorch has to be with a switch to keep it.
const noticeable = 1.02

// tune tries switches one after another and keeps those that help.
func (s *side) tune(t turn, switches []string) error {
	r, err := s.play(t)
	if err != nil {
		return err
	}
	s.name = "torch " + r.Version
	best := median(r.Rates)
	for _, word := range switches {
		kept := s.switches
		s.switches = append(slices.Clone(kept), word)
		r, err := s.play(t)
		if err != nil {
			progress("  %s has no %s: %v", s.name, word, err)
			s.switches = kept
			continue
		}
		rate := median(r.Rates)
		progress("  %s with %s: %.4g samples/s, before %.4g", s.name, word, rate, best)
		if rate < noticeable*best {
			s.switches = kept
			continue
		}
		best = rate
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// median returns the middle of x, which it leaves as it is.
func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}
