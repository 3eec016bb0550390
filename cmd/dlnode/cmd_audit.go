package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/runlog"
)

// auditFlags are the flags of dlnode audit.
type auditFlags struct {
	recomputeFlags
	sample    int
	seed      uint64
	fromStart bool
}

func (m *Main) newAuditCommand() *cobra.Command {
	var f auditFlags
	c := &cobra.Command{
		Use:   "audit RUN",
		Short: "Compute random steps of a run once more, alone, and compare them with what was recorded",
		Long: "audit draws steps of a run and does with each what replay does with one. It draws among the\n" +
			"steps after the oldest checkpoint of the run, and with --from-start among all. The same\n" +
			"--seed draws the same steps. The exit code is 1 if any differs.\n" +
			"RUN is a node's directory or that of a launch.",
		Args: takes("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			f.run = args[0]
			return m.audit(c.Context(), f)
		},
	}
	fl := c.Flags()
	fl.IntVar(&f.sample, "sample", 20, "how many steps to draw; 0 is all of them")
	fl.Uint64Var(&f.seed, "seed", 0, "what to draw them by (default drawn, and told)")
	fl.BoolVar(&f.fromStart, "from-start", false, "draw among the steps before the oldest checkpoint too, which are computed from the start of the run")
	fl.StringVar(&f.checkpoints, "checkpoint", "", "`directory` of the run's checkpoints (default RUN)")
	f.add(c)
	return c
}

func (m *Main) audit(ctx context.Context, f auditFlags) error {
	if f.sample < 0 {
		return usage("--sample: %d is not allowed (want at least 1, or 0 for all steps)", f.sample)
	}
	if f.checkpoints == "" {
		f.checkpoints = f.run
	}
	for f.seed == 0 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		f.seed = uint64(binary.LittleEndian.Uint32(b[:]))
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	r, err := m.openRecompute(ctx, f.recomputeFlags)
	if err != nil {
		return err
	}
	steps, err := r.reachable(f.fromStart)
	if err != nil {
		return err
	}
	drawn := drawSteps(steps, f.sample, f.seed)
	a := auditResult{Seed: f.seed, Recorded: len(steps), Drawn: len(drawn), Agreed: []uint64{}, Differences: []auditDifference{}, Flawed: len(r.log.Flaws)}
	if !f.json {
		fmt.Fprintf(m.Stdout, "%d of %d recorded steps (%s), seed %d\n", a.Drawn, a.Recorded, span(steps), f.seed)
	}
	if err := r.audit(ctx, drawn, &a); err != nil {
		return err
	}
	if f.json {
		if err := json.NewEncoder(m.Stdout).Encode(a); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(m.Stdout, "%d of %d steps agree (%d transitions recomputed, %d checkpoints met, the same to the byte)\n", len(a.Agreed), a.Drawn, a.Recomputed, a.Met)
	}
	if n := len(a.Differences); n > 0 {
		// The one of the oldest base is found last, and named.
		return exit(codeFailed, fmt.Errorf("step %d is not what the run recorded; %d drawn steps are it, or rest on it", a.Differences[n-1].Step, a.Drawn-len(a.Agreed)))
	}
	return r.believed()
}

// auditResult is what audit tells with --json.
type auditResult struct {
	Seed        uint64            `json:"seed"`
	Recorded    int               `json:"recorded"` // steps to draw from
	Drawn       int               `json:"drawn"`
	Agreed      []uint64          `json:"agreed"`          // of the steps drawn, ascending
	Recomputed  int               `json:"recomputed"`      // transitions
	Met         int               `json:"checkpoints_met"` // that came out to the byte
	Differences []auditDifference `json:"differences"`     // the first one after each base
	Flawed      int               `json:"flawed_lines"`    // of the journals: not as they were written, left out
}

// auditDifference is the first step after a base that comes out otherwise.
type auditDifference struct {
	From       uint64 `json:"from_step"`            // it was recomputed from that one on
	Checkpoint string `json:"checkpoint,omitempty"` // of it; none is the starting state
	*runlog.Difference
}

// reachable lists the recorded steps that checkpoints come before.
func (r *recompute) reachable(fromStart bool) ([]uint64, error) {
	steps := r.log.Steps()
	oldest := ^uint64(0)
	for _, e := range r.found.entries {
		if e.Err == nil {
			oldest = min(oldest, e.Manifest.Step)
		}
	}
	if !fromStart {
		steps = slices.DeleteFunc(steps, func(s uint64) bool { return s <= oldest })
	}
	if len(steps) == 0 && !fromStart && len(r.log.Steps()) > 0 {
		return nil, usage("no recorded step comes after a checkpoint that is still there (the oldest is of step %d): --from-start recomputes the run from its start", oldest)
	}
	if len(steps) == 0 {
		return nil, exit(codeData, fmt.Errorf("the journals of %s tell of no step", r.log.Dir))
	}
	return steps, nil
}

// drawSteps takes n of steps, all of them if n is 0, ascending.
func drawSteps(steps []uint64, n int, seed uint64) []uint64 {
	drawn := slices.Clone(steps)
	if n > 0 && n < len(drawn) {
		mathrand.New(mathrand.NewPCG(seed, 0)).Shuffle(len(drawn), func(i, k int) { drawn[i], drawn[k] = drawn[k], drawn[i] })
		drawn = drawn[:n]
	}
	slices.Sort(drawn)
	return drawn
}

// audit recomputes steps, those with the same base together.
func (r *recompute) audit(ctx context.Context, steps []uint64, a *auditResult) error {
	for len(steps) > 0 {
		last := steps[len(steps)-1]
		b, err := r.baseOf(last, true)
		if err != nil {
			return err
		}
		// Ascending, the steps after the newest base before the last one are the last ones.
		i := slices.IndexFunc(steps, func(s uint64) bool { return s > b.step })
		group := steps[i:]
		p, diff, err := r.from(ctx, b, group, fmt.Sprintf(", %d of %d drawn are done", a.Drawn-len(steps), a.Drawn))
		if err != nil {
			return err
		}
		steps = steps[:i]
		a.Recomputed += p.Compared + p.Unrecorded
		a.Met += len(p.Met)
		good := group
		if diff != nil {
			good = slices.DeleteFunc(slices.Clone(group), func(s uint64) bool { return s >= diff.Step })
			a.Differences = append(a.Differences, auditDifference{b.step, b.path, diff})
		}
		a.Agreed = slices.Concat(good, a.Agreed)
		if !r.f.json {
			r.tellGroup(b, good, diff)
		}
	}
	return nil
}

func (r *recompute) tellGroup(b base, good []uint64, diff *runlog.Difference) {
	if len(good) > 0 {
		fmt.Fprintf(r.m.Stdout, "from %s: %s agree\n", b, list(good))
	}
	if diff != nil {
		fmt.Fprintf(r.m.Stdout, "from %s: %s\n", b, strings.Join(diff.Lines, "\n"))
	}
}

// list names steps, those that follow one another by the first and the last.
func list(steps []uint64) string {
	var words []string
	for i := 0; i < len(steps); {
		n := 1
		for i+n < len(steps) && steps[i+n] == steps[i]+uint64(n) {
			n++
		}
		word := fmt.Sprint(steps[i])
		if n > 1 {
			word += fmt.Sprintf(" to %d", steps[i+n-1])
		}
		words = append(words, word)
		i += n
	}
	return "steps " + strings.Join(words, ", ")
}
