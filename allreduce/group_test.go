package allreduce

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// journal is an Outlet that remembers what it was told.
type journal struct {
	sent []Frame
	done []float32 // all results, one after another
	sums []uint64  // their totals'
	ends []ClosingNote
	next func(seq uint64) // what Done does
}

func (j *journal) Send(f Frame) {
	f.Payload = slices.Clone(f.Payload)
	j.sent = append(j.sent, f)
}

func (j *journal) Done(seq uint64, _ [][]byte, total uint64, out []float32) {
	j.sums = append(j.sums, total)
	j.done = append(j.done, out...)
	if j.next != nil {
		j.next(seq)
	}
}

func (j *journal) End(note ClosingNote) { j.ends = append(j.ends, note) }

// member makes rank 1 of a group of "a", "b" and "c", or of "a" and "b", or "b" alone.
func member(world int) (*Group, *journal) {
	j := &journal{}
	cfg := GroupConfig{Self: "b", Ring: Config{World: world, Fence: testFence}}
	if world > 1 {
		cfg.Ring.Rank, cfg.Left, cfg.Right = 1, "a", string("bac"[world-1])
	}
	return NewGroup(cfg, j), j
}

// joined is a member of three whose links are up.
func joined(t *testing.T) (*Group, *journal) {
	g, j := member(3)
	if err := g.Admit("a"); err != nil {
		t.Fatal(err)
	}
	g.Taken()
	return g, j
}

// groupOp is an op of one element with the value 1.
func groupOp(seq uint64) Op {
	return Op{
		Seq: seq, Vec: []float64{1}, Out: make([]float32, 1),
		Finish: plain,
	}
}

func closingFrame(note ClosingNote) Frame {
	return Frame{Fence: testFence, Kind: Closing, Payload: note.Append(nil)}
}

// groupEvents are all events that end a group whose links are up, and how.
var groupEvents = map[string]struct {
	do   func(g *Group)
	want ClosingNote // a reason may be cut off
}{
	"closed here": {
		func(g *Group) { g.Close(Orderly, "", "the end") },
		ClosingNote{By: "b", Reason: "the end", Ending: Orderly},
	},
	"closed here, blaming": {
		func(g *Group) { g.Close(Broken, "c", "no answer") },
		ClosingNote{By: "b", Blame: "c", Reason: "no answer"},
	},
	"left lost": {
		func(g *Group) { g.LeftLost("stream reset\n") },
		ClosingNote{By: "b", Blame: "a", Reason: "stream reset"},
	},
	"right lost": {
		func(g *Group) { g.RightLost("connection refused") },
		ClosingNote{By: "b", Blame: "c", Reason: "connection refused"},
	},
	"right refused": {
		func(g *Group) { g.RightRefused("no such view") },
		ClosingNote{By: "b", Reason: "refused by c: no such view"},
	},
	"protocol": {
		func(g *Group) { g.Protocol("c", errors.New("rubbish")) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: rubbish"},
	},
	"left closed": {
		func(g *Group) { g.Receive(closingFrame(ClosingNote{By: "x", Blame: "y", Reason: "z", Ending: Fatal})) },
		ClosingNote{By: "x", Blame: "y", Reason: "z", Ending: Fatal},
	},
	"right closed": {
		func(g *Group) { g.Reply(closingFrame(ClosingNote{By: "x", Reason: "z", Ending: Orderly})) },
		ClosingNote{By: "x", Reason: "z", Ending: Orderly},
	},
	"left closed in another view": {
		func(g *Group) { g.Receive(Frame{Kind: Closing, Payload: ClosingNote{By: "x"}.Append(nil)}) },
		ClosingNote{By: "b", Blame: "a", Reason: "protocol: frame (view 00000000, op 0, closing,"},
	},
	"right closed in another view": {
		func(g *Group) { g.Reply(Frame{Kind: Closing, Payload: ClosingNote{By: "x"}.Append(nil)}) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: frame (view 00000000, op 0, closing,"},
	},
	"left closed with rubbish": {
		func(g *Group) { g.Receive(Frame{Fence: testFence, Kind: Closing, Payload: []byte{9}}) },
		ClosingNote{By: "b", Blame: "a", Reason: "protocol: allreduce: malformed closing note"},
	},
	"right closed with rubbish": {
		func(g *Group) { g.Reply(Frame{Fence: testFence, Kind: Closing}) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: allreduce: malformed closing note"},
	},
	"a frame out of place": {
		func(g *Group) { g.Receive(Frame{Fence: testFence, Kind: Header, Seq: 5, Hops: 1}) },
		ClosingNote{By: "b", Blame: "a", Reason: "protocol: allreduce: refused frame "},
	},
	"a frame from the right": {
		func(g *Group) { g.Reply(Frame{Fence: testFence, Kind: Header, Seq: 1, Hops: 1, Chunk: 2}) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: frame "},
	},
}

// checkEnd compares all that an outlet was told of ends.
func checkEnd(t *testing.T, j *journal, want ClosingNote) {
	t.Helper()
	if len(j.ends) != 1 {
		t.Fatalf("%d ends: %+v", len(j.ends), j.ends)
	}
	got := j.ends[0]
	if !strings.HasPrefix(got.Reason, want.Reason) {
		t.Errorf("ended with %+v, want %+v", got, want)
	}
	if got.Reason = want.Reason; got != want {
		t.Errorf("ended with %+v, want %+v", got, want)
	}
}

func TestAGroupDiesOfItsFirstCauseAndOfThatAlone(t *testing.T) {
	for name, event := range groupEvents {
		t.Run(name, func(t *testing.T) {
			g, j := joined(t)
			if _, ended := g.Ended(); ended {
				t.Fatal("ended before it began")
			}
			event.do(g)
			checkEnd(t, j, event.want)
			for _, later := range groupEvents {
				later.do(g)
			}
			checkEnd(t, j, event.want)
			if note, ended := g.Ended(); !ended || note != j.ends[0] {
				t.Errorf("says %+v (%v), said %+v", note, ended, j.ends[0])
			}
		})
	}
}

func TestAGroupSaysNothingAfterItsEnd(t *testing.T) {
	g, j := joined(t)
	g.Start(groupOp(1))
	g.Close(Broken, "", "enough")
	sent := len(j.sent)
	if !g.Computing() {
		t.Error("an op is in progress after the end")
	}
	g.Start(groupOp(2))
	g.Receive(Frame{Fence: testFence, Kind: Header, Seq: 1, Hops: 1})
	g.Taken()
	g.Setup(time.Second)
	if err := g.Admit("anybody"); err != nil {
		t.Errorf("a late link is refused: %v", err)
	}
	if len(j.sent) != sent || len(j.done) != 0 || len(j.ends) != 1 {
		t.Errorf("%d frames, was %d; %d results; %d ends", len(j.sent), sent, len(j.done), len(j.ends))
	}
}

func TestAGroupTakesOneLinkAndFromItsLeftNeighbour(t *testing.T) {
	for world := 1; world <= 3; world++ {
		g, j := member(world)
		for _, from := range []string{"c", "b", ""} {
			if err := g.Admit(from); err == nil || !strings.Contains(err.Error(), from+" is not left of b in view ") {
				t.Errorf("world of %d, %q: %v", world, from, err)
			}
		}
		err := g.Admit("a")
		if left, _ := g.Links(); !left || (err == nil) != (world > 1) {
			t.Errorf("world of %d: left up %v, %v", world, left, err)
		}
		if world > 1 {
			err = g.Admit("a")
		}
		if err == nil || world > 1 && !strings.Contains(err.Error(), "a has its stream of view ") {
			t.Errorf("world of %d, again: %v", world, err)
		}
		if len(j.ends) > 0 {
			t.Errorf("world of %d: a refusal ended the group: %+v", world, j.ends)
		}
	}
}

func TestSetupEndsAGroupThatLacksALink(t *testing.T) {
	for _, c := range []struct {
		left, right bool
		want        ClosingNote
	}{
		{true, false, ClosingNote{By: "b", Blame: "c", Reason: "has not taken the stream within 3s"}},
		{false, false, ClosingNote{By: "b", Blame: "c", Reason: "has not taken the stream within 3s"}},
		{false, true, ClosingNote{By: "b", Blame: "a", Reason: "has not opened its stream within 3s"}},
	} {
		g, j := member(3)
		if c.left && g.Admit("a") != nil {
			t.Fatal("refused")
		}
		if c.right {
			g.Taken()
		}
		if left, right := g.Links(); left != c.left || right != c.right {
			t.Errorf("links %v, %v", left, right)
		}
		g.Setup(3 * time.Second)
		checkEnd(t, j, c.want)
	}
	g, j := joined(t)
	if g.Setup(time.Second); len(j.ends) > 0 {
		t.Errorf("ended with both links up: %+v", j.ends)
	}
}

func TestAGroupOfOneNeedsNobody(t *testing.T) {
	g, j := member(1)
	if left, right := g.Links(); !left || !right {
		t.Error("a link is missing")
	}
	g.Setup(time.Second)
	j.next = func(seq uint64) {
		if seq < 3 {
			g.Start(groupOp(seq + 1))
		}
	}
	g.Start(groupOp(1))
	if !slices.Equal(j.done, []float32{1, 1, 1}) || len(j.sent) > 0 || len(j.ends) > 0 || !g.Computing() {
		t.Errorf("results %v, %d frames, ends %+v", j.done, len(j.sent), j.ends)
	}
}

// together carries frames from each of two groups to the other until there are none.
func together(a, b *Group, ja, jb *journal) {
	for len(ja.sent)+len(jb.sent) > 0 {
		fromA, fromB := ja.sent, jb.sent
		ja.sent, jb.sent = nil, nil
		for _, f := range fromA {
			b.Receive(f)
		}
		for _, f := range fromB {
			a.Receive(f)
		}
	}
}

// couple makes both members of a world of two.
func couple() (a, b *Group, ja, jb *journal) {
	ja = &journal{}
	a = NewGroup(GroupConfig{Self: "a", Left: "b", Right: "b", Ring: Config{World: 2, Fence: testFence}}, ja)
	b, jb = member(2)
	return a, b, ja, jb
}

func TestAnOpMayStartBeforeTheLinksAreUp(t *testing.T) {
	a, b, ja, jb := couple()
	a.Start(groupOp(1))
	if a.Computing() || !b.Computing() {
		t.Error("who computes?")
	}
	for _, f := range ja.sent { // waits in b for its Start
		b.Receive(f)
	}
	ja.sent = nil
	b.Start(groupOp(1))
	for _, err := range []error{a.Admit("b"), b.Admit("a")} {
		if err != nil {
			t.Error(err)
		}
	}
	together(a, b, ja, jb)
	if fmt.Sprint(ja.done, jb.done, ja.ends, jb.ends) != "[2] [2] [] []" {
		t.Errorf("results %v, %v, ends %v, %v", ja.done, jb.done, ja.ends, jb.ends)
	}
}

func TestDoneMayStartTheNextOpAndClose(t *testing.T) {
	a, b, ja, jb := couple()
	for g, j := range map[*Group]*journal{a: ja, b: jb} {
		j.next = func(seq uint64) {
			if seq == 3 {
				g.Close(Orderly, "", "done")
			}
			g.Start(groupOp(seq + 1)) // after the end it is dropped
		}
		g.Start(groupOp(1))
	}
	together(a, b, ja, jb)
	if fmt.Sprint(ja.done, jb.done, ja.sums, jb.sums) != "[2 2 2] [2 2 2] [2 2 2] [2 2 2]" {
		t.Errorf("results %v, %v, their sums %v, %v", ja.done, jb.done, ja.sums, jb.sums)
	}
	checkEnd(t, ja, ClosingNote{By: "a", Reason: "done", Ending: Orderly})
	checkEnd(t, jb, ClosingNote{By: "b", Reason: "done", Ending: Orderly})
}

func TestAGroupWithoutNeighboursPanics(t *testing.T) {
	for _, cfg := range []GroupConfig{
		{Self: "a", Ring: Config{World: 2}},
		{Self: "a", Left: "b", Ring: Config{World: 2}},
		{Self: "a", Right: "b", Ring: Config{World: 2}},
		{Self: "a"},
	} {
		func() {
			defer func() {
				if s := fmt.Sprint(recover()); !strings.HasPrefix(s, "allreduce: ") {
					t.Errorf("%+v: recovered %q", cfg, s)
				}
			}()
			NewGroup(cfg, &journal{})
		}()
	}
}
