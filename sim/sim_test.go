package sim

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlnode/dlnode/train"
)

var (
	seeds  = flag.Int("seeds", 300, "how many schedules TestSeeds runs")
	from   = flag.Int("from", 0, "the first of them")
	seed   = flag.Int("seed", -1, "run this one schedule and print its trace")
	stop   = flag.Bool("stop", false, "run seeds in order, stop at the first that fails and print it in one line")
	golden = flag.Bool("golden", false, "record the final states of the loads anew; needs another numerics version")
)

// loads are made once for all tests.
var loads = sync.OnceValues(func() ([]*Load, error) {
	ls, err := NewLoads()
	if err != nil {
		return nil, err
	}
	return ls, recall(ls)
})

const goldenFile = "testdata/golden.txt"

// recall reads the recorded final states. They come from a file, not from a run
// of the program under test: a change that alters all nodes alike is a change.
func recall(ls []*Load) error {
	f, err := os.Open(goldenFile)
	if err != nil {
		return err
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var name, digest string
		var numerics int
		if _, err := fmt.Sscan(in.Text(), &name, &numerics, &digest); err != nil || numerics != train.Numerics {
			continue
		}
		for _, l := range ls {
			if l.Name == name {
				if _, err := hex.Decode(l.Want[:], []byte(digest)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func theLoads(t testing.TB) []*Load {
	t.Helper()
	ls, err := loads()
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

// alone is one node in a perfect world.
func alone(l *Load) Options {
	return Options{Load: l, Nodes: 1, Compute: 2 * time.Millisecond, Faults: Calm(), FormBound: time.Minute, EndBound: 10 * time.Minute}
}

// TestOneNodeAloneEndsWithTheRecordedState is the oracle of all other tests.
func TestOneNodeAloneEndsWithTheRecordedState(t *testing.T) {
	ls, err := NewLoads()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range ls {
		c := newCluster(alone(l))
		c.startNodes()
		if !c.until(10*time.Minute, func() bool { return len(c.living()) == 0 }) {
			t.Fatalf("%s: %s", l.Name, c.standing())
		}
		d := c.lives[0].host.Node().Digest()
		s := c.lives[0].host.Node().State()
		t.Logf("%s: %d transitions, %d steps, %d repeated attempts, %d parameters, early stop after epoch %d of %d, best %d",
			l.Name, s.Transition, s.Step, s.Repeats, len(s.Params()), s.Stopping.Stopped, l.Task.Job.Epochs, s.Stopping.BestEpoch)
		lines = append(lines, fmt.Sprintf("%s %d %x", l.Name, train.Numerics, d))
		if !*golden && d != theLoads(t)[slices.IndexFunc(ls, func(o *Load) bool { return o == l })].Want {
			t.Errorf("%s ends with %x", l.Name, d)
		}
	}
	if *golden {
		if err := os.MkdirAll(filepath.Dir(goldenFile), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenFile, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// replay is the command that runs one seed again.
func replay(seed uint64) string {
	return fmt.Sprintf("go test ./sim -count=1 -v -run '^TestSeeds$' -seed %d", seed)
}

// again runs a schedule once more with its trace.
func again(o Options) *Result {
	o.Trace = true
	return Run(o)
}

func tail(lines []string, n int) string { return strings.Join(lines[max(0, len(lines)-n):], "\n") }

// TestSeeds plays schedules with every fault drawn.
func TestSeeds(t *testing.T) {
	ls := theLoads(t)
	if *seed >= 0 {
		playOne(t, Draw(uint64(*seed), ls))
		return
	}
	begun := time.Now()
	results := playAll(ls, *from, *seeds, *stop)
	var failed []*Result
	for _, r := range results {
		if r != nil && r.Failure != nil {
			failed = append(failed, r)
		}
	}
	report(t, results, time.Since(begun))
	for i, r := range failed {
		if *stop {
			fmt.Printf("FOUND seed=%d checker=%s %s\n", r.Seed, r.Failure.Check, firstLine(r.Failure.Text))
			os.Exit(1)
		}
		if i == 0 {
			a := again(Draw(r.Seed, ls))
			t.Errorf("seed %d, %s\nfaults: %s\n%s\nreplay it by:\n  %s", r.Seed, r.Failure, strings.Join(r.Faults, " "), tail(a.Trace, 60), replay(r.Seed))
			continue
		}
		t.Errorf("seed %d, %s\n  %s", r.Seed, r.Failure, replay(r.Seed))
	}
}

// TestSeedsThatOnceFailed plays the seeds in testdata/regressions.txt first of
// all. What a seed means changes with the simulator, so each bug also has a
// directed schedule or a test in its own package.
func TestSeedsThatOnceFailed(t *testing.T) {
	b, err := os.ReadFile("testdata/regressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var n uint64
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if r := Run(Draw(n, theLoads(t))); r.Failure != nil {
			t.Errorf("seed %d, %s\n  %s", n, r.Failure, replay(n))
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// playOne shows one schedule, and that it is the same each time.
func playOne(t *testing.T, o Options) {
	r := again(o)
	fmt.Println(strings.Join(r.Trace, "\n"))
	fmt.Printf("faults: %s\n", strings.Join(r.Faults, " "))
	fmt.Printf("trace: %d lines, SHA-256 %x\n", len(r.Trace), sha256.Sum256([]byte(strings.Join(r.Trace, "\n"))))
	if r.Failure != nil {
		t.Error(r.Failure)
	}
}

// playAll plays schedules on all cores. With stop it ends at the first that
// fails: none before it does.
func playAll(ls []*Load, from, n int, stop bool) []*Result {
	results := make([]*Result, n)
	var mu sync.Mutex
	next, limit := 0, n
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		if next >= limit {
			return -1
		}
		next++
		return next - 1
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := take(); i >= 0; i = take() {
				results[i] = Run(Draw(uint64(from+i), ls))
				if results[i].Failure != nil && stop {
					mu.Lock()
					limit = min(limit, i)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return results
}

// report tells what was done, how long the worst took, and which faults there were.
func report(t *testing.T, results []*Result, took time.Duration) {
	var formed, ended []time.Duration
	faults := map[string]int{}
	n, events, virtual := 0, 0, time.Duration(0)
	for _, r := range results {
		if r == nil {
			continue
		}
		n++
		events += r.Events
		virtual += r.Virtual
		if r.Formed > 0 {
			formed = append(formed, r.Formed)
		}
		ended = append(ended, r.Ended)
		for _, f := range r.Faults {
			faults[f]++
		}
	}
	t.Logf("%d schedules in %.1f s: %.1f a second, %d events and %s of virtual time each", n, took.Seconds(), float64(n)/took.Seconds(), events/max(1, n), (virtual / time.Duration(max(1, n))).Round(10*time.Millisecond))
	t.Logf("full view after the last fault: %s; end of the last node: %s", quantiles(formed), quantiles(ended))
	var kinds []string
	for k, n := range faults {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(kinds)
	t.Logf("faults: %s", strings.Join(kinds, ", "))
}

func quantiles(ds []time.Duration) string {
	if len(ds) == 0 {
		return "none"
	}
	slices.Sort(ds)
	q := func(p float64) time.Duration { return ds[int(p*float64(len(ds)-1))].Round(time.Millisecond) }
	return fmt.Sprintf("p50 %s, p99 %s, max %s of %d", q(.5), q(.99), q(1), len(ds))
}

func TestEveryWorldSizeGivesTheSameBits(t *testing.T) {
	for _, l := range theLoads(t) {
		for n := 1; n <= 7; n++ {
			o := alone(l)
			o.Nodes, o.Seed = n, uint64(n)
			if r := Run(o); r.Failure != nil || r.Finished != n {
				t.Errorf("%s on %d nodes: %v, %d finished\n%s", l.Name, n, r.Failure, r.Finished, tail(again(o).Trace, 60))
			}
		}
	}
}
