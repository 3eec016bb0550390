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

func (j *journal) Send(to []int, f Frame) {
	f.Payload = slices.Clone(f.Payload)
	for range to {
		j.sent = append(j.sent, f)
	}
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
	cfg := GroupConfig{Names: []string{"a", "b", "c"}[:world], Config: Config{World: world, Fence: testFence}}
	if world > 1 {
		cfg.Config.Rank = 1
	} else {
		cfg.Names = []string{"b"}
	}
	return NewGroup(cfg, j), j
}

// joined is a member of three whose links are up: a has opened one, c has taken one.
func joined(t *testing.T) (*Group, *journal) {
	g, j := member(3)
	if rank, err := g.Admit("a"); rank != 0 || err != nil {
		t.Fatal(rank, err)
	}
	g.Taken(2)
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
	"a peer lost": {
		func(g *Group) { g.Lost(0, "stream reset\n") },
		ClosingNote{By: "b", Blame: "a", Reason: "stream reset"},
	},
	"another peer lost": {
		func(g *Group) { g.Lost(2, "connection refused") },
		ClosingNote{By: "b", Blame: "c", Reason: "connection refused"},
	},
	"refused": {
		func(g *Group) { g.Refused(2, "no such view") },
		ClosingNote{By: "b", Reason: "refused by c: no such view"},
	},
	"protocol": {
		func(g *Group) { g.Protocol(2, errors.New("rubbish")) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: rubbish"},
	},
	"a peer closed": {
		func(g *Group) {
			g.Receive(0, closingFrame(ClosingNote{By: "x", Blame: "y", Reason: "z", Ending: Fatal}))
		},
		ClosingNote{By: "x", Blame: "y", Reason: "z", Ending: Fatal},
	},
	"another peer closed": {
		func(g *Group) { g.Receive(2, closingFrame(ClosingNote{By: "x", Reason: "z", Ending: Orderly})) },
		ClosingNote{By: "x", Reason: "z", Ending: Orderly},
	},
	"a peer closed in another view": {
		func(g *Group) { g.Receive(0, Frame{Kind: Closing, Payload: ClosingNote{By: "x"}.Append(nil)}) },
		ClosingNote{By: "b", Blame: "a", Reason: "protocol: frame (view 00000000, op 0, auto, closing,"},
	},
	"another peer closed in another view": {
		func(g *Group) { g.Receive(2, Frame{Kind: Closing, Payload: ClosingNote{By: "x"}.Append(nil)}) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: frame (view 00000000, op 0, auto, closing,"},
	},
	"a peer closed with rubbish": {
		func(g *Group) { g.Receive(0, Frame{Fence: testFence, Kind: Closing, Payload: []byte{9}}) },
		ClosingNote{By: "b", Blame: "a", Reason: "protocol: allreduce: malformed closing note"},
	},
	"another peer closed with rubbish": {
		func(g *Group) { g.Receive(2, Frame{Fence: testFence, Kind: Closing}) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: allreduce: malformed closing note"},
	},
	"a frame out of place": {
		func(g *Group) { g.Receive(0, Frame{Fence: testFence, Kind: Header, Seq: 5}) },
		ClosingNote{By: "b", Blame: "a", Reason: "protocol: allreduce: refused frame "},
	},
	"a frame of no algorithm": {
		func(g *Group) { g.Receive(2, Frame{Fence: testFence, Kind: Header, Seq: 1, Chunk: 2}) },
		ClosingNote{By: "b", Blame: "c", Reason: "protocol: allreduce: refused frame "},
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
	g.Receive(0, Frame{Fence: testFence, Kind: Header, Seq: 1})
	g.Taken(2)
	g.Setup(time.Second)
	if rank, err := g.Admit("anybody"); rank != -1 || err != nil {
		t.Errorf("a late link is refused: %d, %v", rank, err)
	}
	if len(j.sent) != sent || len(j.done) != 0 || len(j.ends) != 1 {
		t.Errorf("%d frames, was %d; %d results; %d ends", len(j.sent), sent, len(j.done), len(j.ends))
	}
}

func TestAGroupTakesOneLinkFromEachPeerThatOpensOne(t *testing.T) {
	for world := 1; world <= 3; world++ {
		g, j := member(world)
		for _, from := range []string{"c", "b", "", "d"} { // in a world of three b opens the link to c
			if rank, err := g.Admit(from); rank != -1 || err == nil || !strings.Contains(err.Error(), from+" has no stream to open to b in view ") {
				t.Errorf("world of %d, %q: %v", world, from, err)
			}
		}
		_, err := g.Admit("a")
		if g.Up(0) != (world > 1) || (err == nil) != (world > 1) {
			t.Errorf("world of %d: up %v, %v", world, g.Up(0), err)
		}
		if world > 1 {
			_, err = g.Admit("a")
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
		if c.left {
			if _, err := g.Admit("a"); err != nil {
				t.Fatal(err)
			}
		}
		if c.right {
			g.Taken(2)
		}
		if g.Up(0) != c.left || g.Up(2) != c.right {
			t.Errorf("links %v, %v", g.Up(0), g.Up(2))
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
	if len(g.Peers()) > 0 {
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
			b.Receive(0, f)
		}
		for _, f := range fromB {
			a.Receive(1, f)
		}
	}
}

// couple makes both members of a world of two.
func couple() (a, b *Group, ja, jb *journal) {
	ja = &journal{}
	a = NewGroup(GroupConfig{Names: []string{"a", "b"}, Config: Config{World: 2, Fence: testFence}}, ja)
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
		b.Receive(0, f)
	}
	ja.sent = nil
	b.Start(groupOp(1))
	a.Taken(1)
	if _, err := b.Admit("a"); err != nil {
		t.Error(err)
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

func TestAnOpenOpIsGivenPieceByPiece(t *testing.T) {
	a, b, ja, jb := couple()
	for _, g := range []*Group{a, b} {
		op := groupOp(1)
		op.Open = true
		g.Start(op)
	}
	a.Ready(0, 1)
	a.Head([]byte("a"))
	b.Head([]byte("b"))
	together(a, b, ja, jb)
	if len(ja.done)+len(jb.done) > 0 || !slices.Equal(a.Awaited(), []int{1}) || a.Computing() || b.Computing() {
		t.Error("done before all is there")
	}
	b.Ready(0, 1)
	together(a, b, ja, jb)
	if fmt.Sprint(ja.done, jb.done, ja.ends, jb.ends) != "[2] [2] [] []" {
		t.Errorf("results %v, %v, ends %v, %v", ja.done, jb.done, ja.ends, jb.ends)
	}
	a.Close(Orderly, "", "the end")
	a.Ready(0, 1) // dropped
	a.Head(nil)
}

func TestAGroupOfNodesWithoutNamesPanics(t *testing.T) {
	for _, cfg := range []GroupConfig{
		{Config: Config{World: 2}},
		{Names: []string{"a", ""}, Config: Config{World: 2}},
		{Names: []string{"a"}, Config: Config{World: 2}},
		{Names: []string{"a"}},
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
