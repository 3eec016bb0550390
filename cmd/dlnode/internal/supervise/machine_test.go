package supervise

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// play drives a machine by hand and writes down what it wants done.
type play struct {
	m   *machine
	now time.Time
	log []string
}

func newPlay(p Policy, ids ...string) *play {
	y := &play{m: newMachine(p), now: time.Unix(1000, 0)}
	for _, id := range ids {
		y.m.add(y.now, id)
	}
	y.note()
	return y
}

// note writes effects down, and lets starts succeed.
func (y *play) note() {
	for effects := y.m.take(); len(effects) > 0; effects = y.m.take() {
		for _, e := range effects {
			switch e.verb {
			case start:
				y.log = append(y.log, fmt.Sprintf("start %s %d", e.id, e.attempt))
				y.m.started(e.id, 100*e.attempt)
			case terminate:
				y.log = append(y.log, "terminate "+e.id)
			case kill:
				y.log = append(y.log, "kill "+e.id)
			case tell:
				if e.event.Kind == Exited {
					y.log = append(y.log, e.event.String())
				}
			}
		}
	}
}

func (y *play) exits(id string, e Exit) { y.m.exited(y.now, id, e); y.note() }
func (y *play) interrupt()              { y.m.interrupt(y.now); y.note() }
func (y *play) wait(d time.Duration)    { y.now = y.now.Add(d); y.m.tick(y.now); y.note() }

func (y *play) expect(t *testing.T, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), y.log); diff != "" {
		t.Error(diff)
	}
	y.log = nil
}

var killed = Exit{Signal: "killed"}

func TestTheDeadAreStartedAgainEverMoreSlowly(t *testing.T) {
	y := newPlay(Policy{MaxRestarts: 4, Backoff: time.Second, MaxBackoff: 3 * time.Second, Healthy: time.Minute}, "a", "b")
	y.exits("a", killed)
	y.wait(999 * time.Millisecond)
	y.wait(time.Millisecond)
	y.exits("a", Exit{Status: 1})
	y.wait(2 * time.Second)
	y.exits("a", killed)
	y.wait(3 * time.Second)
	y.wait(time.Minute) // healthy
	y.exits("a", killed)
	y.wait(time.Second)
	y.exits("a", killed)
	y.exits("b", Exit{})
	y.expect(t, `
start a 1
start b 1
a ended by signal: killed; to be started again in 1s
start a 2
a exited with status 1; to be started again in 2s
start a 3
a ended by signal: killed; to be started again in 3s
start a 4
a ended by signal: killed; to be started again in 1s
start a 5
a ended by signal: killed; not started again: it had all of its 4 restarts
b exited with status 0: finished`)
	if !y.m.over() || y.m.result("").Err() != nil {
		t.Errorf("over %v, %v", y.m.over(), y.m.result("").Err())
	}
}

func TestWhatARestartCannotHealIsNotRestarted(t *testing.T) {
	y := newPlay(Policy{MaxRestarts: 4, Hopeless: []int{2}}, "a")
	y.exits("a", Exit{Status: 2})
	y.expect(t, "start a 1\na exited with status 2; not started again: it would end the same way")
	want := "no node finished: a exited with status 2 (log: logs/a.log)"
	if err := y.m.result("logs").Err(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOnceTheJobIsDoneTheDeadStayDead(t *testing.T) {
	y := newPlay(Policy{MaxRestarts: 4}, "a", "b", "c")
	y.exits("a", killed)
	y.exits("b", Exit{})
	y.exits("c", killed)
	y.wait(time.Hour)
	y.expect(t, `
start a 1
start b 1
start c 1
a ended by signal: killed; to be started again in 250ms
b exited with status 0: finished
a ended by signal: killed; not started again: the job is done
c ended by signal: killed; not started again: the job is done`)
	if !y.m.over() {
		t.Error("not over")
	}
}

func TestTheFirstInterruptAsksAndTheSecondKills(t *testing.T) {
	y := newPlay(Policy{MaxRestarts: 4}, "a", "b", "c")
	y.exits("c", killed)
	y.interrupt()
	y.exits("a", Exit{})
	y.m.add(y.now, "d")
	y.interrupt()
	y.exits("b", killed)
	y.wait(time.Hour)
	y.expect(t, `
start a 1
start b 1
start c 1
c ended by signal: killed; to be started again in 250ms
terminate a
terminate b
a exited with status 0: left
kill b
b ended by signal: killed: left`)
	r := y.m.result("logs")
	if !y.m.over() || !r.Interrupted {
		t.Errorf("over %v, interrupted %v", y.m.over(), r.Interrupted)
	}
	want := "no node finished: b ended by signal: killed (log: logs/b.log); c ended by signal: killed (log: logs/c.log)"
	if err := r.Err(); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestLeavingEndsInAKillIfItTakesTooLong(t *testing.T) {
	y := newPlay(Policy{LeaveGrace: 10 * time.Second}, "a", "b")
	y.m.leave(y.now, "a")
	y.m.leave(y.now, "a")
	y.note()
	y.wait(9 * time.Second)
	y.wait(time.Second)
	y.wait(time.Hour)
	y.exits("a", killed)
	y.expect(t, "start a 1\nstart b 1\nterminate a\nkill a\na ended by signal: killed: left")
	if y.m.over() {
		t.Error("over, but b is at work")
	}
}

func TestAnOrderlyEndIsNoError(t *testing.T) {
	y := newPlay(Policy{}, "a")
	y.interrupt()
	y.exits("a", Exit{})
	if err := y.m.result("").Err(); err != nil {
		t.Error(err)
	}
}

// TestWhateverHappensItComesToAnEnd throws everything at the machine, and then
// only lets processes end.
func TestWhateverHappensItComesToAnEnd(t *testing.T) {
	ends := []Exit{{}, killed, {Status: 1}, {Status: 2}}
	rapid.Check(t, func(t *rapid.T) {
		ids := []string{"a", "b", "c"}
		y := newPlay(Policy{MaxRestarts: rapid.IntRange(0, 3).Draw(t, "restarts"), Hopeless: []int{2}}, ids...)
		end := func(id string) {
			if y.m.node(id).alive {
				y.exits(id, rapid.SampledFrom(ends).Draw(t, "exit"))
			}
		}
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			id := rapid.SampledFrom(ids).Draw(t, "id")
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				y.interrupt()
			case 1:
				y.m.leave(y.now, id)
			case 2, 3, 4, 5:
				end(id)
			default:
				y.wait(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "wait")))
			}
			y.note()
		}
		for range 20 {
			for _, id := range ids {
				end(id)
			}
			y.wait(time.Minute)
		}
		if _, ok := y.m.next(); ok || !y.m.over() {
			t.Fatalf("not over:\n%s", strings.Join(y.log, "\n"))
		}
		for _, n := range y.m.nodes {
			if limit := y.m.policy.MaxRestarts + 1; n.starts > limit || n.alive {
				t.Fatalf("%s: %d starts of %d, alive %v", n.id, n.starts, limit, n.alive)
			}
		}
	})
}

func TestEventsAreLinesForPeople(t *testing.T) {
	for _, c := range []struct {
		e    Event
		want string
	}{
		{Event{Kind: Started, ID: "a", PID: 7, Attempt: 1}, "a started as process 7"},
		{Event{Kind: Started, ID: "a", PID: 8, Attempt: 2}, "a started again as process 8 (start 2)"},
		{Event{Kind: Leaving, ID: "a"}, "a was asked to leave"},
		{Event{Kind: Killing, ID: "a"}, "a is killed"},
		{Event{Kind: Troubled, ID: "a", Err: fmt.Errorf("output: no space")}, "a: output: no space"},
		{Event{Kind: Exited, ID: "a", Exit: Exit{Err: fmt.Errorf("no such file")}, Outcome: Lost, Reason: "restarts are off"}, "a could not be started: no such file; not started again: restarts are off"},
	} {
		if got := c.e.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
