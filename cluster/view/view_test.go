package view

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawFact(t *rapid.T) Fact {
	f := Fact{
		ID: rapid.StringMatching(`[a-z0-9-]{1,64}`).Draw(t, "id"), Incarnation: rapid.Uint64().Draw(t, "incarnation"),
		Addr: rapid.StringMatching(`[a-z0-9.:]{0,100}`).Draw(t, "addr"), Zone: rapid.StringMatching(`[a-z]{0,60}`).Draw(t, "zone"),
		Generation: rapid.Uint64Max(maxGeneration).Draw(t, "generation"), Entry: rapid.Uint64Max(maxGeneration).Draw(t, "entry"),
		Transition: rapid.Uint64().Draw(t, "transition"), Speed: rapid.Float32Range(0, 1e9).Draw(t, "speed"),
		Leaving: rapid.Bool().Draw(t, "leaving"), Finished: rapid.Bool().Draw(t, "finished"),
	}
	copy(f.Trajectory[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "trajectory"))
	return f
}

func TestAFactSurvivesItsEncodingAndFitsIntoGossip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFact(t)
		b := f.Append(nil)
		if len(b) > MaxFactBytes {
			t.Fatalf("%d bytes, at most %d fit", len(b), MaxFactBytes)
		}
		got, err := ParseFact(b)
		if err != nil || got != f {
			t.Fatalf("got %+v, %v, want %+v", got, err, f)
		}
		for cut := range len(b) {
			if _, err := ParseFact(b[:cut]); err == nil {
				t.Fatalf("%d of %d bytes are a fact too", cut, len(b))
			}
		}
	})
}

func FuzzParseFact(f *testing.F) {
	f.Add(Fact{ID: "a", Addr: "127.0.0.1:1"}.Append(nil))
	f.Add([]byte{factVersion, 0, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		if fact, err := ParseFact(b); err == nil {
			if again, err := ParseFact(fact.Append(nil)); err != nil || again.ID != fact.ID {
				t.Errorf("%q is read as %+v and then as %+v, %v", b, fact, again, err)
			}
		}
	})
}

func FuzzDecodeMsg(f *testing.F) {
	f.Add(Msg{Hello: &Hello{}}.Encode())
	f.Add(Msg{Propose: &View{Generation: 1, Members: []Member{{ID: "a"}}}}.Encode())
	f.Add(Msg{From: Fact{ID: "a"}, Change: changeOf(crowded(9), crowded(7))}.Encode())
	f.Add(Msg{From: Fact{ID: "a"}, Propose: crowded(200)}.Encode())
	f.Add([]byte(`{"From":{"ID":"n1","Incarnation":2},"Start":{"Donors":[[0,99999]]}}`))
	f.Add([]byte(`{"From":{"ID":"n1","Incarnation":2},"Start":{"Donors":[-1]}}`))
	f.Add([]byte(`{"From":{"ID":"n1","Incarnation":2},"Propose":{"Members":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMsg(b)
		if err != nil {
			return
		}
		h := newHall(1)
		m.From.Trajectory = h.machines[0].self.Trajectory
		h.machines[0].Receive(h.now, m) // must not panic
	})
}

// crowded is a view of n members.
func crowded(n int) *View {
	v := &View{Generation: uint64(n), Proposer: Node{"m0000", 1}, MinNodes: 2}
	for i := range n {
		v.Members = append(v.Members, Member{ID: fmt.Sprintf("m%04d", i), Incarnation: uint64(i + 1), Addr: fmt.Sprint("10.0.0.1:", i), Entry: 1})
	}
	return v.sealed()
}

func TestAChangeMakesTheViewItNamesOrNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(what string) *View {
			v := &View{Generation: 9, Proposer: Node{"m0", 1}, MinNodes: 1, Members: []Member{{ID: "m0", Incarnation: 1, Entry: 1}}}
			for i := range rapid.IntRange(0, 12).Draw(t, what) {
				if rapid.Bool().Draw(t, "is in") {
					v.Members = append(v.Members, Member{ID: fmt.Sprint("m", i+1), Incarnation: 1, Zone: rapid.SampledFrom([]string{"", "z"}).Draw(t, "zone"), Entry: uint64(i % 3)})
				}
			}
			slices.SortFunc(v.Members, ringOrder)
			return v.sealed()
		}
		base, v := draw("base"), draw("next")
		c, err := unpackChange(changeOf(base, v).wire)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.from(base); err != nil || !cmp.Equal(got, v) {
			t.Fatalf("%v: %v from %v", err, got, base)
		}
		c.View[3]++
		if got, err := c.from(base); err == nil {
			t.Fatalf("made %v, which has another name", got)
		}
	})
}

func TestWhoLacksTheBaseOfAChangeAsksForTheWhole(t *testing.T) {
	h := newHall(3)
	h.settle(t, time.Minute)
	m := h.machines[2]
	m.Quiet(h.now, Stand{Transition: 1}, Cause{}, nil)
	m.last = nil // it has forgotten
	m.regardAll()
	h.dead[1], h.logs = true, true
	h.settle(t, time.Minute)
	asked := slices.ContainsFunc(h.log, func(line string) bool { return strings.Contains(line, `\"Ask\":{`) })
	if v := m.Running(); v.World() != 2 || !asked {
		t.Errorf("it is in a view of %d; it asked: %v", v.World(), asked)
	}
}

func TestEveryPartOfAViewIsInItsName(t *testing.T) {
	base := func() *View {
		return &View{Generation: 3, Proposer: Node{"a", 1}, MinNodes: 1, Members: []Member{
			{ID: "a", Incarnation: 1, Addr: "h:1", Zone: "z", Entry: 1}, {ID: "b", Incarnation: 2, Addr: "h:2", Entry: 2},
		}}
	}
	names := map[Name]string{base().Name(): "itself"}
	for what, change := range map[string]func(*View){
		"trajectory": func(v *View) { v.Trajectory[9]++ }, "generation": func(v *View) { v.Generation++ },
		"proposer": func(v *View) { v.Proposer.ID = "b" }, "proposer's life": func(v *View) { v.Proposer.Incarnation++ },
		"min nodes": func(v *View) { v.MinNodes++ }, "order": func(v *View) { slices.Reverse(v.Members) },
		"a member": func(v *View) { v.Members = v.Members[:1] }, "an id": func(v *View) { v.Members[1].ID = "c" },
		"a life": func(v *View) { v.Members[1].Incarnation++ }, "an address": func(v *View) { v.Members[1].Addr = "h:3" },
		"a zone": func(v *View) { v.Members[1].Zone = "y" }, "an entry": func(v *View) { v.Members[1].Entry++ },
		"where one name ends": func(v *View) { v.Members[0].ID, v.Members[0].Addr = "ah", ":1" },
	} {
		v := base()
		change(v)
		if other, dup := names[v.Name()]; dup {
			t.Errorf("%s: the name is that of %s", what, other)
		}
		names[v.Name()] = what
	}
}

func TestNoTwoNeighboursHaveABadLink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "members")
		ms := make([]Member, n)
		for i := range ms {
			ms[i] = Member{ID: fmt.Sprint(i), Entry: uint64(rapid.IntRange(0, 3).Draw(t, "entry")), Zone: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "zone")}
		}
		badPairs := map[pair]bool{}
		for range rapid.IntRange(0, 4).Draw(t, "bad") {
			a, b := rapid.IntRange(0, n-1).Draw(t, "a"), rapid.IntRange(0, n-1).Draw(t, "b")
			if a != b {
				badPairs[pairOf(ms[a].Node(), ms[b].Node())] = true
			}
		}
		bad := func(a, b Node) bool { return badPairs[pairOf(a, b)] }
		ring, out := arrange(ms, bad)
		if len(ring)+len(out) != n || len(ring) == 0 {
			t.Fatalf("%d in the ring, %d out, of %d", len(ring), len(out), n)
		}
		if i := firstBad(ring, bad); i >= 0 {
			t.Fatalf("%s and its neighbour have a bad link in %v", ring[i].ID, ring)
		}
		if len(badPairs) == 0 && len(out) > 0 {
			t.Fatalf("%v left out without a bad link", out)
		}
	})
}

func TestFourNodesWithOneBadLinkAllTrain(t *testing.T) {
	ms := []Member{{ID: "1"}, {ID: "2"}, {ID: "3"}, {ID: "4"}}
	ring, out := arrange(ms, func(a, b Node) bool { return pairOf(a, b) == pairOf(Node{ID: "1"}, Node{ID: "2"}) })
	if len(ring) != 4 || len(out) != 0 {
		t.Errorf("ring %v, out %v", ring, out)
	}
}

func TestTheOddOneOutIsNamed(t *testing.T) {
	d := func(s string) (ds [][]byte) {
		for _, c := range s {
			ds = append(ds, []byte{byte(c)})
		}
		return ds
	}
	for _, c := range []struct {
		digests string
		odd     []int
		known   bool
	}{
		{"aaaa", nil, true}, {"a", nil, true}, {"", nil, true}, {"abaa", []int{1}, true}, {"baaa", []int{0}, true}, {"aab", []int{2}, true},
		{"abaac", []int{1, 4}, true}, {"ab", nil, false}, {"aabb", nil, false}, {"abc", nil, false},
	} {
		if odd, known := Odd(d(c.digests)); !slices.Equal(odd, c.odd) || known != c.known {
			t.Errorf("%q: got %v, %v, want %v, %v", c.digests, odd, known, c.odd, c.known)
		}
	}
}

func TestMessagesSurviveTheirEncoding(t *testing.T) {
	v := &View{Generation: 3, Proposer: Node{"a", 1}, Members: []Member{{ID: "a", Incarnation: 1, Entry: 1}}}
	for _, m := range []Msg{
		{Hello: &Hello{}}, {Hello: &Hello{v.Name(), Node{"b", 2}}}, {Propose: v}, {Change: reminder(v)}, {Ask: &Ask{v.Name()}},
		{Propose: crowded(300)}, {Change: changeOf(crowded(300), crowded(200))}, {Start: &Start{v.Name(), 9, [32]byte{1}, []int{0, 1, 2, 5, 7, 8}, Recall{3, 8}}},
		{Hold: &Hold{v.Name()}}, {Ack: &Ack{v.Name(), 3, Stand{9, [32]byte{1}, 6, Recall{2, 4}}}},
		{Refuse: &Refuse{v.Name(), 4, true, "no"}}, {Start: &Start{v.Name(), 9, [32]byte{1}, []int{0}, Recall{}}}, {Stop: &Stop{v.Name(), "x"}}, {Expel: &Expel{7, "odd", true}},
	} {
		m.From = Fact{ID: "a", Incarnation: 1 << 63, Trajectory: [32]byte{31: 1}}
		got, err := DecodeMsg(m.Encode())
		if err != nil || !cmp.Equal(got, m) {
			t.Errorf("%v: %s", err, cmp.Diff(m, got))
		}
	}
	long := strings.Repeat("x", 300)
	for _, bad := range []string{
		"", "{}", "[]", `{"Hello":{},"Stop":{}}`, `{"Propose":1}`,
		`{"Hello":{}}`, `{"From":{"ID":"` + long + `"},"Hello":{}}`, `{"From":{"ID":"a","Addr":"` + long + `"},"Hello":{}}`,
		`{"From":{"ID":"a","Generation":18446744073709551615},"Hello":{}}`,
		`{"From":{"ID":"a"},"Propose":{"Members":[]}}`, `{"From":{"ID":"a"},"Propose":{"Members":[{"ID":"b"}],"Proposer":{"ID":"a"}}}`,
		`{"From":{"ID":"a"},"Propose":{"Members":[{"ID":"a"},{"ID":"a"}],"Proposer":{"ID":"a"}}}`,
		`{"From":{"ID":"a"},"Propose":{"Members":[{"ID":"` + long + `"}],"Proposer":{"ID":"` + long + `"}}}`,
		`{"From":{"ID":"a"},"Start":{}}`, `{"From":{"ID":"a"},"Start":{"Donors":[-1]}}`, `{"From":{"ID":"a"},"Start":{"Donors":[1,1]}}`,
	} {
		if _, err := DecodeMsg([]byte(bad)); err == nil {
			t.Errorf("%q is a message", bad)
		}
	}
}
