package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/train"
)

// play is a story with a clock and short words for what happens in it.
type play struct {
	t     *testing.T
	story *Story
	now   time.Time
}

func newPlay(t *testing.T, nodes ...string) *play {
	p := &play{t, NewStory(), time.Unix(1000, 0)}
	for _, id := range nodes {
		p.story.Process(p.now, supervise.Event{Kind: supervise.Started, ID: id, PID: 7, Attempt: 1})
	}
	return p
}

func (p *play) says(id string, l train.Line) {
	p.t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		p.t.Fatal(err)
	}
	p.story.Line(p.now, id, b)
}

func (p *play) tells(id, kind string, generation uint64, node, text string) {
	p.t.Helper()
	p.says(id, train.Line{Event: &train.Event{Kind: kind, Generation: generation, Node: node, Text: text}})
}

func (p *play) stands(id string, step uint64, world int) {
	p.t.Helper()
	p.says(id, train.Line{Progress: &train.Progress{
		Node: id, Step: step, Steps: 100, Epoch: int(step)/20 + 1, Epochs: 5, World: world,
	}})
}

func (p *play) exits(id string, o supervise.Outcome) {
	p.story.Process(p.now, supervise.Event{Kind: supervise.Exited, ID: id, Exit: supervise.Exit{Signal: "killed"}, Outcome: o})
}

func (p *play) waits(d time.Duration) {
	p.now = p.now.Add(d)
	p.story.Tick(p.now)
}

// shows takes what is shown: texts as they are, progress as "node step/epoch".
func (p *play) shows(want ...string) {
	p.t.Helper()
	var got []string
	for _, t := range p.story.Take() {
		if t.Progress != nil {
			t.Text = fmt.Sprintf("%s %d/%d", t.Progress.Node, t.Progress.Step, t.Progress.Epoch)
		}
		got = append(got, t.Text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Fatalf("shown (-want +got):\n%s", diff)
	}
}

func TestAnEventIsToldOnce(t *testing.T) {
	p := newPlay(t, "node-1", "node-2", "node-3")
	for _, id := range []string{"node-1", "node-2", "node-3"} {
		p.tells(id, "view", 1, "", "three start")
	}
	p.shows("three start")
	p.tells("node-2", "lost", 2, "node-1", "node-1 lost after 3 ms")
	p.tells("node-3", "lost", 2, "node-1", "node-1 lost after 4 ms")
	p.shows("node-1 lost after 3 ms")
	p.tells("node-2", "lost", 3, "node-1", "node-1 lost again")
	p.shows("node-1 lost again")
}

func TestTwoNodesLostAtOnceAreBothTold(t *testing.T) {
	p := newPlay(t, "node-1", "node-2")
	p.tells("node-1", "lost", 2, "node-3", "node-3 lost")
	p.tells("node-2", "lost", 2, "node-4", "node-4 lost")
	p.shows("node-3 lost", "node-4 lost")
}

func TestANewcomersOpeningGivesWayToOneThatSaysWhy(t *testing.T) {
	p := newPlay(t, "node-1", "node-4")
	p.tells("node-1", "view", 1, "", "one starts")
	p.shows("one starts")

	p.tells("node-4", "view", 2, "", "generation 2 starts")
	p.waits(100 * time.Millisecond)
	p.shows()
	p.tells("node-1", "joined", 2, "", "node-4 joined")
	p.waits(time.Second)
	p.shows("node-4 joined")

	p.tells("node-1", "joined", 3, "", "node-5 joined")
	p.tells("node-4", "view", 3, "", "generation 3 starts")
	p.waits(time.Second)
	p.shows("node-5 joined")

	p.tells("node-1", "view", 4, "", "generation 4 starts") // nobody knows better
	p.tells("node-1", "lost", 5, "the ring", "the ring was lost")
	p.shows("generation 4 starts")
	p.waits(time.Second)
	p.shows("the ring was lost")
}

func TestOutsideAGenerationWordsTellEventsApart(t *testing.T) {
	p := newPlay(t, "node-1", "node-2")
	p.tells("node-1", "waiting", 0, "node-1", "waiting for 2 more nodes")
	p.tells("node-2", "waiting", 0, "node-2", "waiting for 2 more nodes")
	p.tells("node-2", "waiting", 0, "node-2", "waiting for 1 more node")
	p.shows("waiting for 2 more nodes", "waiting for 1 more node")
}

func TestWhatHappensToOneNodeCarriesItsName(t *testing.T) {
	p := newPlay(t, "node-1", "node-2")
	p.tells("node-1", "copied", 2, "", "copied the state")
	p.tells("node-2", "copied", 2, "", "copied the state")
	p.tells("node-2", "checkpoint failed", 0, "", "no space left")
	p.tells("node-2", "checkpoint failed", 0, "", "no space left")
	p.shows("node-1: copied the state", "node-2: copied the state", "node-2: no space left")
}

func TestProgressIsOfOneReporter(t *testing.T) {
	p := newPlay(t, "node-1", "node-2")
	p.stands("node-2", 1, 2)
	p.stands("node-1", 1, 2)
	p.stands("node-2", 2, 2)
	p.stands("node-1", 2, 2)
	p.shows("node-2 1/1", "node-2 2/1")
}

func TestAnotherNodeReportsWhenTheReporterIsGone(t *testing.T) {
	gone := map[string]func(p *play){
		"it died":         func(p *play) { p.exits("node-1", supervise.Lost) },
		"it is silent":    func(p *play) { p.waits(2 * silence) },
		"it dropped out":  func(p *play) { p.stands("node-1", 5, 0) },
		"it was replaced": func(p *play) { p.story.node("node-1").alive = false },
	}
	for name, happens := range gone {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, "node-1", "node-2")
			p.stands("node-1", 5, 2)
			happens(p)
			p.story.Take()
			p.stands("node-2", 6, 1)
			p.shows("node-2 6/1")
			p.stands("node-1", 0, 0) // started again, or not back in yet
			p.stands("node-2", 7, 1)
			p.shows("node-2 7/1")
		})
	}
}

func TestTheEndOfAnEpochIsShownWithItsValidation(t *testing.T) {
	p := newPlay(t, "node-1")
	p.stands("node-1", 19, 1)
	p.stands("node-1", 20, 1) // between the epochs: its values are the first one's
	p.stands("node-1", 41, 1) // the second one's end was not seen
	p.shows("node-1 19/1", "node-1 20/1", "node-1 20/2", "node-1 41/3")
}

func TestOnlyUnexpectedEndsAreNews(t *testing.T) {
	p := newPlay(t, "node-1", "node-2", "node-3", "node-4")
	p.story.Killed("node-1")
	p.exits("node-1", supervise.Lost)
	p.exits("node-2", supervise.Finished)
	p.exits("node-3", supervise.Left)
	p.shows()
	p.exits("node-4", supervise.Lost)
	p.shows("node-4 ended by signal: killed; not started again: ")
	p.story.Process(p.now, supervise.Event{Kind: supervise.Started, ID: "node-4", PID: 9, Attempt: 2})
	p.shows("node-4 started again as process 9 (start 2)")
}

func TestLeavingIsToldOnceForAll(t *testing.T) {
	p := newPlay(t, "node-1", "node-2")
	for _, id := range []string{"node-1", "node-2"} {
		p.story.Process(p.now, supervise.Event{Kind: supervise.Leaving, ID: id})
	}
	if all := p.story.Take(); len(all) != 1 {
		t.Errorf("%d lines, want 1: %v", len(all), all)
	}
}

func TestARestartForgetsTheLastResult(t *testing.T) {
	p := newPlay(t, "node-1")
	p.says("node-1", train.Line{Result: &train.Result{Step: 3}})
	if r := p.story.Result("node-1"); r == nil || r.Step != 3 {
		t.Fatalf("result %+v, want step 3", r)
	}
	p.story.Process(p.now, supervise.Event{Kind: supervise.Started, ID: "node-1", Attempt: 2})
	if r := p.story.Result("node-1"); r != nil {
		t.Errorf("result %+v of a process that is gone", r)
	}
}

func TestAfterTheDeathOfAllAChapterBegins(t *testing.T) {
	p := newPlay(t, "node-1", "node-2")
	p.tells("node-1", "view", 1, "", "two start")
	p.tells("node-1", "view", 2, "", "two start again") // held
	p.story.Killed("node-1")
	p.story.Killed("node-2")
	p.exits("node-1", supervise.Lost)
	p.shows("two start")
	p.exits("node-2", supervise.Lost)
	p.shows("two start again")
	p.tells("node-1", "view", 1, "", "two start from a checkpoint")
	p.shows("two start from a checkpoint")
}

func TestTheProtocolsOwnAffairsAreNotShown(t *testing.T) {
	p := newPlay(t, "node-1")
	p.tells("node-1", "refused", 1, "node-2", "node-2 refused the proposed view")
	p.shows()
}

func TestWhoCameTooLateIsLetGo(t *testing.T) {
	p := newPlay(t, "node-1", "node-2", "node-3")
	p.says("node-1", train.Line{Result: &train.Result{Finished: true}})
	p.exits("node-2", supervise.Lost)
	p.story.Take()
	if ids := p.story.Retire(); !slices.Equal(ids, []string{"node-3"}) {
		t.Fatalf("%v shall leave, want node-3", ids)
	}
	p.story.Retire()
	p.shows("the job is done; node-3 shall leave")
}

func TestWhatIsNoLineIsShownAsItIs(t *testing.T) {
	p := newPlay(t, "node-1")
	p.story.Line(p.now, "node-1", []byte("hello"))
	p.shows("node-1: hello")
	if all := p.story.Take(); !slices.Equal(all, nil) {
		t.Errorf("shown twice: %v", all)
	}
}
