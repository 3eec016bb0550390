package chaos

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }

// journal makes a life that completes a step every 10 ms, from one moment to another.
func journal(node string, words ...[]train.Record) lives.Life {
	l := lives.Life{Node: node, Records: []train.Record{{T: "open", Time: begin}}}
	for _, w := range words {
		l.Records = append(l.Records, w...)
	}
	return l
}

func stepping(generation uint64, from, to int) (all []train.Record) {
	for ms := from; ms <= to; ms += 10 {
		all = append(all, train.Record{T: "step", Kind: "update", Time: at(ms), Generation: generation})
	}
	return all
}

func opening(kind string, generation uint64, ms, after int) []train.Record {
	return []train.Record{{T: "event", Kind: kind, Time: at(ms), Generation: generation, View: fmt.Sprint(generation), Millis: float64(after)}}
}

// node-3 is killed at 1000 ms. The others know after 30 and 50 ms, go on after 80 and
// 90, and take it in again at 2000.
func killed() []lives.Life {
	return []lives.Life{
		journal("node-1", opening("view", 1, 0, 0), stepping(1, 10, 1000), opening("lost", 2, 1070, 40), stepping(2, 1080, 1990), opening("joined", 3, 2010, 5), stepping(3, 2040, 3000)),
		journal("node-2", opening("view", 1, 0, 0), stepping(1, 10, 990), opening("lost", 2, 1060, 10), stepping(2, 1090, 1990), opening("joined", 3, 2010, 5), stepping(3, 2050, 3000)),
		journal("node-3", opening("view", 1, 0, 0), stepping(1, 10, 990)),
		journal("node-3", opening("view", 3, 2010, 0), stepping(3, 2040, 3000)),
	}
}

func TestWhatAKillCosts(t *testing.T) {
	track := trackOf(killed())
	x := &Played{Fault: Fault{N: 1, Kind: Kill}, Victims: []string{"node-3"}, Start: at(1000), End: at(1500)}
	got := costs([]*Played{x}, track)
	want := Cost{Fault: 1, Kind: Kill, Role: "worker", Lost: true, Known: 30 * time.Millisecond, Next: 80 * time.Millisecond, Gap: 80 * time.Millisecond, Alone: true, Whole: true, Back: 510 * time.Millisecond}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	usual := usualStep(track)
	if usual != 10*time.Millisecond {
		t.Errorf("a usual step takes %v", usual)
	}
	js := joins([]*Played{x}, track, usual)
	if len(js) != 1 || js[0].Pause != 40*time.Millisecond || !js[0].Alone {
		t.Errorf("joins: %+v, want one pause of 40 ms", js)
	}
}

func TestAFaultThatNobodyLosesAnybodyForCostsAGap(t *testing.T) {
	all := []lives.Life{
		journal("node-1", opening("view", 1, 0, 0), stepping(1, 10, 1000), stepping(1, 1400, 3000)),
		journal("node-2", opening("view", 1, 0, 0), stepping(1, 10, 1000), stepping(1, 1400, 3000)),
	}
	x := &Played{Fault: Fault{N: 4, Kind: Pause}, Victims: []string{"node-2"}, Start: at(995), End: at(1390)}
	got := costs([]*Played{x}, trackOf(all))
	want := Cost{Fault: 4, Kind: Pause, Role: "worker", Gap: 400 * time.Millisecond, Alone: true, Whole: true}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBothSidesOfACutCount(t *testing.T) {
	side := func(node string, next int) lives.Life {
		return journal(node, opening("view", 1, 0, 0), stepping(1, 10, 1000), opening("lost", 2, next-10, 20), stepping(2, next, 4000))
	}
	x := &Played{Fault: Fault{N: 2, Kind: Partition}, Victims: []string{"node-3"}, Start: at(1000), End: at(3500), WasCoordinator: true}
	got := costs([]*Played{x}, trackOf([]lives.Life{side("node-1", 3000), side("node-2", 3100), side("node-3", 2800)}))
	next := []time.Duration{got[0].Next, got[1].Next}
	if slices.Sort(next); len(got) != 2 || next[0] != 1800*time.Millisecond || next[1] != 2*time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestFaultsThatMeetAreNotAlone(t *testing.T) {
	track := trackOf(killed())
	kill := &Played{Fault: Fault{N: 1, Kind: Kill}, Victims: []string{"node-3"}, Start: at(1000), End: at(1500)}
	for _, other := range []struct {
		start, end int
		alone      bool
	}{
		{100, 300, true}, // it was over when the kill came
		{1050, 1060, false},
		{1100, 1200, true}, // the kill was got over by then
	} {
		y := &Played{Fault: Fault{N: 2, Kind: Starve}, Victims: []string{"node-2"}, Start: at(other.start), End: at(other.end)}
		if got := costs([]*Played{kill, y}, track)[0].Alone; got != other.alone {
			t.Errorf("a fault from %d to %d ms: the kill at 1000 is alone: %v", other.start, other.end, got)
		}
	}
}

// While a node is out of the view that the others are in, a fault is one of several.
func TestAFaultOfADividedClusterIsNotAlone(t *testing.T) {
	for when, alone := range map[int]bool{500: true, 1500: false, 2500: true} {
		x := &Played{Fault: Fault{N: 1, Kind: Pause}, Victims: []string{"node-2"}, Start: at(when), End: at(when + 10)}
		if got := costs([]*Played{x}, trackOf(killed()))[0].Alone; got != alone {
			t.Errorf("a pause at %d ms is alone: %v", when, got)
		}
	}
}

// Another's loss at the same time is not taken for the victim's.
func TestALossIsOfTheVictim(t *testing.T) {
	all := killed()
	for i := range all[:2] {
		for k := range all[i].Records {
			if all[i].Records[k].Kind == "lost" {
				all[i].Records[k].About = "node-3 (coordinator), node-1"
			}
		}
	}
	for victim, lost := range map[string]bool{"node-3": true, "node-1": true, "node-2": false} {
		x := &Played{Fault: Fault{N: 1, Kind: Freeze}, Victims: []string{victim}, Start: at(1000), End: at(1500)}
		if got := costs([]*Played{x}, trackOf(all))[0].Lost; got != lost {
			t.Errorf("%s is lost: %v", victim, got)
		}
	}
}

func TestADeathForWantOfMemoryIsDatedByTheLastWord(t *testing.T) {
	x := &Played{Fault: Fault{Kind: OutOfMem}, Victims: []string{"node-3"}, Start: at(700), Noticed: at(1015), End: at(1500)}
	dateDeaths([]*Played{x}, trackOf(killed()))
	if !x.Start.Equal(at(990)) {
		t.Errorf("dated %v after the beginning, want 990 ms", x.Start.Sub(begin))
	}
}

func TestAReportTellsItsTable(t *testing.T) {
	track := trackOf(killed())
	r := &Report{Options: options(1), Played: []*Played{{Fault: Fault{N: 1, Kind: Kill}, Victims: []string{"node-3"}, Start: at(1000), End: at(1500)}}, Took: time.Second}
	r.Costs, r.Joins = costs(r.Played, track), joins(r.Played, track, 10*time.Millisecond)
	r.Want = Verdict{Model: "abc"}
	r.Verdicts = []NodeVerdict{{"node-1", r.Want}}
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	fields := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"kill, worker 1 1 30 30 30 80 80 80 80 80 80 510 510 510", "kill to the next step, p50 80 ms, 500 ms wanted, n = 1: met",
		"freeze to the next step, p99 0 ms, 5000 ms wanted, n = 0: not measured", "p50 40 ms, p99 40 ms, most 40 ms (n = 1)", "abc node-1 equal",
	} {
		if !strings.Contains(fields, want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
	r.Troubles = []string{"something"}
	out.Reset()
	if err := r.Write(&out); err != nil || strings.Contains(out.String(), "equal") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestWhatGrowsIsTold(t *testing.T) {
	before := []Held{{RSS: 100 << 20, Files: 20, Threads: 10, Goroutines: 100}}
	for _, after := range []Held{{RSS: 290 << 20, Files: 20}, {RSS: 100 << 20, Files: 40}, {Threads: 30}, {Goroutines: 200}} {
		if bad := grown(before, []Held{before[0], after}); len(bad) != 1 {
			t.Errorf("%+v after %+v: %v", after, before, bad)
		}
	}
	if bad := grown(before, before); len(bad) > 0 {
		t.Error(bad)
	}
}
