package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// --- 15. gradients that are far from right ---

// spoils has a life compute wrong gradients: change changes what is rounded last of them.
func (c *Cluster) spoils(l *life, what string, change func(a *train.Attempt, microbatch int, grads []float32)) {
	c.checks.flipped = &flip{who: l, what: what, gradient: true, element: -1}
	l.engine.Spoil(func(a *train.Attempt, microbatch, lo int, grads []float32) {
		if lo == 0 {
			change(a, microbatch, grads)
		}
	})
}

// said counts the lines of a trace that have some words.
func said(r *Result, words string) (n int) {
	for _, line := range r.Trace {
		if strings.Contains(line, words) {
			n++
		}
	}
	return n
}

// traced is named with a trace.
func traced(t *testing.T, o Options, safety func(*Cluster)) *Result {
	t.Helper()
	o.Trace = true
	return named(t, o, safety)
}

// TestAHugeGradientCoarsensNobodysGrid: one element of a gradient is wrong once, and
// does not fit its grid. The exponents of the repeat, which is computed right, must not
// be those that the wrong one asks for: small gradients would be gone. Whose it was is
// known where there are others, since it contradicts itself.
func TestAHugeGradientCoarsensNobodysGrid(t *testing.T) {
	for nodes := 1; nodes <= 4; nodes++ {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			perSeed(t, 6, func(t *testing.T, seed uint64) {
				var bad *life
				r := traced(t, directed(seed, theLoads(t)[seed%3], nodes), func(c *Cluster) {
					c.begin(5 + 4*seed)
					bad = c.living()[int(seed)%nodes]
					done := false
					c.spoils(bad, "a gradient", func(a *train.Attempt, _ int, grads []float32) {
						if !done {
							grads[0], done = 1e30, true
						}
					})
					c.await(time.Minute, "a wrong gradient", func() bool { return done })
				})
				if nodes == 1 && said(r, "what is seen of the gradients differs") == 0 {
					t.Error("nobody has doubts")
				}
				if nodes > 1 && said(r, "fault: "+bad.id+" computed the gradient") == 0 {
					t.Errorf("%s is not named", bad.id)
				}
			})
		})
	}
}

// TestWhatIsSeenInOneAttemptAloneIsDoubted: the first step is repeated anyway, to learn
// the exponents; a wrong one that is seen meanwhile is not to be learned, whatever it is
// a repeat of.
func TestWhatIsSeenInOneAttemptAloneIsDoubted(t *testing.T) {
	for repeat := range 2 {
		t.Run(fmt.Sprintf("repeat=%d", repeat), func(t *testing.T) {
			perSeed(t, 3, func(t *testing.T, seed uint64) {
				r := traced(t, directed(seed, theLoads(t)[seed%3], 1), func(c *Cluster) {
					done := false
					l := c.boot("node-1", 1)
					c.spoils(l, "a gradient", func(a *train.Attempt, _ int, grads []float32) {
						if a.Step == 0 && a.Repeat == repeat && !done {
							grads[0], done = 1e20, true
						}
					})
					c.await(time.Minute, "a wrong gradient", func() bool { return done })
				})
				if said(r, "what is seen of the gradients differs") != 1 {
					t.Error("it is not doubted once")
				}
			})
		})
	}
}

// TestOneWhoSeesSomethingElseEachTimeStopsItsRun: alone, with gradients that do not fit
// and are others whenever they are computed, nobody can go on.
func TestOneWhoSeesSomethingElseEachTimeStopsItsRun(t *testing.T) {
	named(t, directed(1, theLoads(t)[0], 1), func(c *Cluster) {
		c.begin(10)
		c.checks.meant = "what is seen of the gradients differs from one attempt to the next, 3 times in a row"
		times := 0
		c.spoils(c.living()[0], "sums", func(_ *train.Attempt, _ int, grads []float32) {
			times++
			grads[0] = float32(math.Ldexp(1, 100-times%50))
		})
		c.await(time.Minute, "its end", c.allGone)
	})
}

// TestWhoComputesNoNumberNowAndThenIsNamed: it does so in microbatches that are not
// probed, and not in the same ones in the repeat. No other node may end for it, nor is an
// update skipped.
func TestWhoComputesNoNumberNowAndThenIsNamed(t *testing.T) {
	skips := withOracle(t, loadOf(t, stops, func(j *job.Job) { j.Name, j.OnNonfinite = "skips", "skip" }))
	loads := append(slices.Clone(theLoads(t)), skips)
	for nodes := 2; nodes <= 4; nodes++ {
		for _, x := range []float64{math.NaN(), math.Inf(-1)} {
			t.Run(fmt.Sprintf("nodes=%d/%v", nodes, x), func(t *testing.T) {
				perSeed(t, 2*len(loads), func(t *testing.T, seed uint64) {
					var bad *life
					r := traced(t, directed(seed, loads[int(seed)%len(loads)], nodes), func(c *Cluster) {
						c.begin(5 + 2*seed)
						bad = c.living()[int(seed)%nodes]
						hit := map[int]bool{}
						step := uint64(math.MaxUint64)
						c.spoils(bad, "a gradient", func(a *train.Attempt, mb int, grads []float32) {
							if a.Kind == train.Update && a.Step <= step && !hit[a.Repeat] && !slices.Contains(a.Probes, mb) {
								step, hit[a.Repeat] = a.Step, true
								grads[0] = float32(x)
							}
						})
						c.await(time.Minute, "a wrong gradient", func() bool { return len(hit) > 0 })
					})
					if said(r, "fault: "+bad.id+" computed the gradient") == 0 {
						t.Errorf("%s is not named", bad.id)
					}
				})
			})
		}
	}
}

// TestWhoAlwaysComputesNoNumberIsNamedByTheOthers, and where there is one other only the
// run ends, with words for that.
func TestWhoAlwaysComputesNoNumberIsNamedByTheOthers(t *testing.T) {
	for nodes := 2; nodes <= 4; nodes++ {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			perSeed(t, 3, func(t *testing.T, seed uint64) {
				var bad *life
				r := traced(t, directed(seed, theLoads(t)[seed%3], nodes), func(c *Cluster) {
					c.begin(5)
					bad = c.living()[int(seed)%nodes]
					c.spoils(bad, "gradients", func(_ *train.Attempt, _ int, grads []float32) { grads[0] = float32(math.NaN()) })
					c.await(time.Minute, "its end", func() bool { return !bad.alive })
					if c.checks.flipped.undecided != (nodes == 2) {
						c.checks.fail("flip", "it is %v that nobody can know", nodes != 2)
					}
				})
				if nodes > 2 && said(r, fmt.Sprintf("fault: %s computes the gradient of microbatch", bad.id)) == 0 {
					t.Errorf("%s is not named", bad.id)
				}
			})
		})
	}
}
