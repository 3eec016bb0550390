package runlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlnode/dlnode/train"
)

// journal writes a node's journal. @N in a line stands for the time N milliseconds
// after some beginning.
func journal(t *testing.T, dir, node string, lines ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, node), 0o755); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, line := range lines {
		before, after, found := strings.Cut(line, "@")
		var ms int
		if n, err := fmt.Sscanf(after, "%d", &ms); !found || n != 1 {
			t.Fatal(line, err)
		}
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
		b.WriteString(before + `"time":"` + at.Format(time.RFC3339Nano) + `"` + strings.TrimLeft(after, "0123456789") + "\n")
	}
	if err := os.WriteFile(filepath.Join(dir, node, train.JournalName), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// step is the record of an update, ms after the beginning.
func step(ms, transition, generation, world, lo, hi int, more string) string {
	return fmt.Sprintf(`{"t":"step","kind":"update",@%d,"transition":%d,"step":%[2]d,"generation":%d,"world":%d,"lo":%d,"hi":%d,"ms":10%s}`,
		ms, transition, generation, world, lo, hi, more)
}

func TestTheStoryOfARunAndWhatItsFailuresCost(t *testing.T) {
	dir := t.TempDir()
	// b is lost in step 3. Then both are gone for a minute, and what a has done since
	// its checkpoint of step 3 is done again. In the end there is a change of shares,
	// an attempt that is repeated, and early stopping.
	journal(t, dir, "a",
		`{"t":"open",@0}`, `{"t":"start",@1,"node":"a","text":"0123456789abcdef"}`,
		`{"t":"event","kind":"view",@5,"generation":1,"text":"generation 1: 2 nodes (a, b) start with step 0"}`,
		step(10, 1, 1, 2, 0, 2, ""), step(20, 2, 1, 2, 0, 2, ""),
		`{"t":"event","kind":"lost",@60,"generation":2,"about":"b","step":2,"ms":25,"text":"b lost at step 2: stream reset; 1 node (a) goes on with step 2 after 25 ms"}`,
		step(70, 3, 2, 1, 0, 4, ""),
		`{"t":"event","kind":"checkpoint",@75,"step":3,"text":"here/3"}`,
		step(80, 4, 2, 1, 0, 4, ""), step(90, 5, 2, 1, 0, 4, ""),
		`{"t":"open",@60000}`,
		`{"t":"event","kind":"resume",@60001,"step":3,"text":"resumes from the checkpoint of step 3"}`,
		`{"t":"start",@60002,"node":"a","step":3,"text":"0123456789abcdef"}`,
		`{"t":"event","kind":"view",@60005,"generation":1,"step":3,"text":"generation 1: 2 nodes (a, b) start with step 3"}`,
		step(60010, 4, 1, 2, 0, 2, ""), step(60020, 5, 1, 2, 0, 2, ""),
		`{"t":"event","kind":"pace",@60021,"generation":1,"step":5,"text":"microbatches by speed: a 1, b 3"}`,
		`{"t":"event","kind":"pace",@60025,"generation":1,"step":6,"text":"microbatches by speed: a 0, b 4"}`,
		step(60030, 6, 1, 2, 0, 0, `,"repeat":3,"nonfinite":1,"doubted":1`),
		`{"t":"event","kind":"early stop",@60031,"generation":1,"step":6,"text":"early stopping after epoch 1"}`,
		`{"t":"end",@60040,"step":6,"text":"finished"}`)
	journal(t, dir, "b",
		`{"t":"open",@2}`, `{"t":"start",@3,"node":"b","text":"0123456789abcdef"}`,
		`{"t":"event","kind":"view",@6,"generation":1,"text":"generation 1: 2 nodes (a, b) start with step 0"}`,
		step(11, 1, 1, 2, 2, 4, ""), step(21, 2, 1, 2, 2, 4, ""),
		`{"t":"open",@60000}`, `{"t":"start",@60003,"node":"b","step":3,"text":"0123456789abcdef"}`,
		step(60011, 4, 1, 2, 2, 4, ""), step(60021, 5, 1, 2, 2, 4, ""),
		`{"t":"event","kind":"pace",@60021,"generation":1,"step":5,"text":"microbatches by speed: a 1, b 3"}`,
		step(60031, 6, 1, 2, 0, 4, `,"repeat":3,"nonfinite":1,"doubted":1`),
		`{"t":"event","kind":"early stop",@60032,"generation":1,"step":6,"text":"early stopping after epoch 1"}`,
		`{"t":"end",@60041,"step":6,"text":"finished"}`)
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Explain(l).Write(&b, "run"); err != nil {
		t.Fatal(err)
	}
	want := `run: trajectory 0123456789abcdef, 2 nodes (a, b)
from 2026-01-02 03:04:05 to 2026-01-02 03:05:05, 1m0s

        1 ms  a begins, with the state of step 0
        3 ms  b begins, with the state of step 0
        5 ms  generation 1: 2 nodes (a, b) start with step 0
       21 ms  the last word of b, after step 2: this process did not end in order
       60 ms  b lost at step 2: stream reset; 1 node (a) goes on with step 2 after 25 ms
       75 ms  checkpoint of step 3
       90 ms  the last word of a, after step 5: this process did not end in order
        1m0s  a: resumes from the checkpoint of step 3
        1m0s  a begins again (start 2), with the state of step 3
        1m0s  b begins again (start 2), with the state of step 3
        1m0s  generation 1: 2 nodes (a, b) start with step 3
        1m0s  shares changed 2 times; from step 6 on, microbatches by speed: a 0, b 4
        1m0s  early stopping after epoch 1
        1m0s  a, b: finished, at step 6

what the changes of nodes cost
AFTER  WHAT                               KNOWN AFTER  NEXT STEP AFTER  COMPUTED AGAIN
20 ms  b lost                             15 ms        50 ms            -
90 ms  all nodes had gone; started again  -            59.92 s          2 transitions

failures      2, which cost 59.95 s (99.8 % of the run; a step took 10 ms)
computed      6 updates; again: 2 transitions that were lost or done apart, at most 2 attempts in hand at a failure
repeated      1 for exponents, 1 for results that were no number, 1 for sums that changed on their way
checkpoints   of 1 step

NODE  STARTS  DIED  UPDATES  MICROBATCHES  IN STEPS  WAITED FOR DATA  LAST WORD
a     2       1     8        20            80 ms     0 ms             1m0s
b     2       1     5        12            50 ms     0 ms             1m0s
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAnEmptyJournalHasAStory(t *testing.T) {
	dir := t.TempDir()
	journal(t, dir, "a")
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Explain(l).Write(&strings.Builder{}, "run"); err != nil {
		t.Error(err)
	}
}

// TestStepsThatWereTakenBackAreNotOfTheRun: after step 2 a gradient was found wrong; a
// goes back to step 1, computes what came after again, and once more after a restart.
func TestStepsThatWereTakenBackAreNotOfTheRun(t *testing.T) {
	dir := t.TempDir()
	journal(t, dir, "a", `{"t":"start",@1,"node":"a","text":"0123456789abcdef"}`,
		step(10, 1, 4, 2, 0, 2, `,"gradient":"01"`), step(20, 2, 4, 2, 0, 2, `,"gradient":"bad"`), step(30, 3, 4, 2, 0, 2, `,"gradient":"bad"`),
		`{"t":"event","kind":"fault",@35,"generation":4,"about":"b","step":3,"text":"b computes otherwise"}`,
		`{"t":"event","kind":"recall",@40,"generation":4,"step":1,"text":"back from step 3 to the state of step 1"}`,
		step(50, 2, 5, 1, 0, 4, `,"gradient":"02"`), `{"t":"open",@60000}`, step(60010, 3, 1, 1, 0, 4, `,"gradient":"03"`))
	journal(t, dir, "b", `{"t":"start",@1,"node":"b","text":"0123456789abcdef"}`,
		step(10, 1, 4, 2, 2, 4, `,"gradient":"01"`), step(20, 2, 4, 2, 2, 4, `,"gradient":"bad"`))
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for transition := range uint64(4) {
		for _, w := range l.steps[transition] {
			left = append(left, fmt.Sprintf("%s %d %s", w.Node, transition, w.Gradient))
		}
	}
	if want := []string{"a 1 01", "b 1 01", "a 2 02", "a 3 03"}; !cmp.Equal(left, want) || l.Back != 3 {
		t.Errorf("%d taken back; %s", l.Back, cmp.Diff(want, left))
	}
}
