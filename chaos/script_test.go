package chaos

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func options(seed uint64) Options {
	return Options{Seed: seed, Faults: 400, Every: 2500 * time.Millisecond, Nodes: 5, Kinds: Kinds()}
}

func TestAScriptIsAFunctionOfItsSeed(t *testing.T) {
	a := Draw(options(7))
	if !reflect.DeepEqual(a, Draw(options(7))) {
		t.Error("one seed draws two scripts")
	}
	if reflect.DeepEqual(a, Draw(options(8))) {
		t.Error("two seeds draw one script")
	}
}

// All kinds are drawn, in order, at the pace that was asked for; half of them hit
// whoever coordinates, and some overlap.
func TestAScriptKeepsThePaceAndMeetsAll(t *testing.T) {
	s := Draw(options(1))
	met, coordinator, overlap := map[Kind]int{}, 0, 0
	for i, f := range s {
		met[f.Kind]++
		if f.Coordinator {
			coordinator++
		}
		if i > 0 {
			before := s[i-1]
			if f.At < before.At {
				t.Fatalf("%v comes after %v", f, before)
			}
			if f.At < before.At+before.Lasts {
				overlap++
			}
		}
		if h := habitOf(f.Kind); f.Lasts < h.least || f.Lasts > h.most || f.Node < 0 || f.Node >= 5 {
			t.Errorf("%v", f)
		}
	}
	for _, k := range Kinds() {
		if met[k] == 0 {
			t.Errorf("%s is not drawn", k)
		}
	}
	if n := len(s); coordinator < n*2/5 || coordinator > n*3/5 || overlap < n/10 || overlap > n/2 {
		t.Errorf("of %d faults %d hit the coordinator, %d overlap", n, coordinator, overlap)
	}
	last := s[len(s)-1].At
	if pace := last / time.Duration(len(s)); pace < 2400*time.Millisecond || pace > 2600*time.Millisecond {
		t.Errorf("one fault every %v", pace)
	}
}

func TestAScriptDrawsNothingElse(t *testing.T) {
	o := options(3)
	o.Kinds = []Kind{Freeze, Loss}
	for _, f := range Draw(o) {
		if f.Kind != Freeze && f.Kind != Loss {
			t.Fatalf("%v", f)
		}
	}
}

func TestAPartitionCutsEachWayBetweenTheSidesAndNoOther(t *testing.T) {
	for _, f := range Draw(options(4)) {
		if f.Kind != Partition {
			continue
		}
		for victim := range 5 {
			side := f.side(victim, 5)
			if len(side) != 2 || !slices.Contains(side, victim) {
				t.Fatalf("%v: node %d is on the side %v", f, victim, side)
			}
			all := ways(f, victim, 5)
			if len(all) != 2*2*3 {
				t.Fatalf("%v cuts %v", f, all)
			}
			for _, w := range all {
				if slices.Contains(side, w.from) == slices.Contains(side, w.to) {
					t.Fatalf("%v cuts %v, side %v", f, w, side)
				}
			}
		}
	}
}

func TestAOneWayCutLeavesTheWayBack(t *testing.T) {
	for _, f := range Draw(options(5)) {
		if f.Kind != OneWay {
			continue
		}
		for victim := range 5 {
			all := ways(f, victim, 5)
			want := map[Direction]int{Out: 4, In: 4, Pair: 1}[f.Direction]
			if len(all) != want {
				t.Fatalf("%v cuts %v", f, all)
			}
			for _, w := range all {
				if w.from == w.to || slices.Contains(all, way{w.to, w.from}) || (w.to == victim) != (f.Direction == In) {
					t.Fatalf("%v at node %d cuts %v", f, victim, all)
				}
			}
		}
	}
}

// Whatever faults overlap, a way is open exactly when none of them cuts it.
func TestAWayIsCutAsLongAsAnyFaultCutsIt(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	c, shut := newCuts(5), map[way]bool{}
	set := func(to bool) func([]way) error {
		return func(all []way) error {
			for _, w := range all {
				if shut[w] == to {
					t.Fatalf("%v is cut twice, or opened twice", w)
				}
				shut[w] = to
			}
			return nil
		}
	}
	type lasting struct {
		ways []way
		heal func() error
	}
	var now []lasting
	for _, f := range Draw(Options{Seed: 9, Faults: 500, Every: time.Second, Nodes: 5, Kinds: []Kind{Partition, OneWay}}) {
		all := ways(f, f.Node, 5)
		heal, err := c.strike(all, set(true), set(false))
		if err != nil {
			t.Fatal(err)
		}
		now = append(now, lasting{all, heal})
		for len(now) > 0 && rnd.IntN(4) == 0 {
			k := rnd.IntN(len(now))
			if err := now[k].heal(); err != nil {
				t.Fatal(err)
			}
			now = slices.Delete(now, k, k+1)
		}
		for i := range 5 {
			for j := range 5 {
				w := way{i, j}
				want := slices.ContainsFunc(now, func(l lasting) bool { return slices.Contains(l.ways, w) })
				if shut[w] != want {
					t.Fatalf("%v is cut: %v, want %v", w, shut[w], want)
				}
			}
		}
	}
}

func TestACutThatFailsIsTakenBack(t *testing.T) {
	c := newCuts(3)
	broken := errors.New("no")
	_, err := c.strike([]way{{0, 1}}, func([]way) error { return broken }, func(all []way) error {
		if !slices.Equal(all, []way{{0, 1}}) {
			t.Errorf("opened %v", all)
		}
		return nil
	})
	if !errors.Is(err, broken) || c[0][1] != 0 {
		t.Errorf("%v, and the way is counted as cut %d times", err, c[0][1])
	}
}

func TestATollIsThatOfAllFaultsThatLast(t *testing.T) {
	toll := newToll(1)
	if hold, lost := toll.pass(); hold != 0 || lost {
		t.Errorf("nothing lasts, and a packet is held for %v (%v)", hold, lost)
	}
	liftA := toll.add(Fault{N: 1, Kind: Delay, Amount: 20})
	liftB := toll.add(Fault{N: 2, Kind: Delay, Amount: 30})
	liftC := toll.add(Fault{N: 3, Kind: Loss, Amount: 0.25})
	lost := 0
	for range 4000 {
		hold, gone := toll.pass()
		if gone {
			lost++
		} else if hold != 50*time.Millisecond {
			t.Fatalf("held for %v", hold)
		}
	}
	if lost < 850 || lost > 1150 {
		t.Errorf("of 4000 packets %d are lost, want a quarter", lost)
	}
	if liftA() != 2 || liftC() != 1 {
		t.Error("faults that last are not counted")
	}
	if hold, gone := toll.pass(); hold != 30*time.Millisecond || gone {
		t.Errorf("held for %v (%v)", hold, gone)
	}
	if liftB() != 0 {
		t.Error("a fault is left")
	}
}
