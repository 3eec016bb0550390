package train

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
)

// TestASilentDonorIsPassedOver: another one, that answers, lends its state then, or gives
// the pieces of a record. Where no other answers, the donor is asked again, more patiently.
func TestASilentDonorIsPassedOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ state, answered bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		t.Run(fmt.Sprintf("state %v, answered %v", c.state, c.answered), func(t *testing.T) {
			t.Parallel()
			task := simTask(t)
			n := NewNode(task, task.Start(), view.DefaultConfig(view.Fact{ID: "newcomer", Incarnation: 9, Trajectory: task.Trajectory}), checkpoint.Policy{Replicas: 1}, time.Now())
			f := &follower{donors: []donor{{Fact: view.Fact{ID: "mute"}}, {Fact: view.Fact{ID: "lively"}}}, asks: map[uint64]asking{}, hasState: !c.state}
			f.coming = []*coming{{isState: true, left: 1}}
			if !c.state {
				f.coming, f.newest = []*coming{expected(0, make([]float32, task.Model.NumParams()))}, 1
			}
			n.follower = f
			now := time.Now()
			asked := map[string][]Follow{}
			ask := func() {
				clear(asked)
				for n.ask() {
				}
				for _, e := range n.Take() {
					if e, is := e.(Follow); is {
						asked[e.Donor.ID] = append(asked[e.Donor.ID], e)
					}
				}
			}
			wanted := func(of []Follow) bool { // of the item
				return slices.ContainsFunc(of, func(e Follow) bool { return e.Request.Transition == 0 })
			}
			ask()
			first := asked["mute"][0]
			if !wanted(asked["mute"]) || first.Silence != shortestSilence {
				t.Fatalf("asked at first: %+v", asked)
			}
			now = now.Add(shortestSilence)
			if c.answered {
				n.Followed(now, asked["lively"][0].Number, rpc.Piece{Newest: 1}, nil)
			}
			n.Followed(now, first.Number, rpc.Piece{}, &rpc.Error{Kind: rpc.Timeout})
			ask()
			next := "mute"
			if c.answered {
				next = "lively"
			}
			if !wanted(asked[next]) || asked[next][0].Silence != 2*shortestSilence {
				t.Errorf("asked after the silence: %+v", asked)
			}
			if c.answered && len(asked["mute"]) > 0 {
				t.Errorf("the silent donor is asked for more: %+v", asked["mute"])
			}
		})
	}
}

func TestADonorIsAskedNoMoreOnceAnotherLifeHasItsPlace(t *testing.T) {
	task := lateOverflow(t)
	n, c := newcomer(task)
	member := func(id string, incarnation, generation, entry uint64) view.Fact {
		return view.Fact{ID: id, Incarnation: incarnation, Addr: id + ":7000", Trajectory: task.Trajectory, Generation: generation, Entry: entry}
	}
	f := n.follower
	f.donors = []donor{{Fact: member("other", 1, 3, 3)}, {Fact: member("lost", 7, 3, 3)}}
	asked := span{0, 4}
	f.asks[1], f.donors[1].asks = asking{donor: 1, what: c, span: asked}, 1
	for _, fact := range []view.Fact{member("other", 1, 4, 3), member("lost", 7, 3, 3), member("lost", 2, 4, 0)} {
		n.Up(time.Now(), fact)
	}
	if f.donors[1].gone() || len(c.open) > 0 {
		t.Fatal("a life that is no member yet has taken the place of a donor")
	}
	n.Up(time.Now(), member("lost", 2, 4, 4))
	var named []uint64
	for _, d := range f.donors {
		if !d.gone() {
			named = append(named, d.Incarnation)
		}
	}
	if !slices.Equal(named, []uint64{1, 2}) {
		t.Errorf("lives %v are asked, want those of incarnations 1 and 2", named)
	}
	if !slices.Equal(c.open, []span{asked}) {
		t.Errorf("elements %v are to be asked for again, want %v", c.open, asked)
	}
	canceled := slices.ContainsFunc(n.Take(), func(e Effect) bool { _, is := e.(CancelFollow); return is })
	if !canceled {
		t.Error("what the former life was asked for is still waited for")
	}
	n.Up(time.Now(), member("lost", 7, 4, 3)) // late word of the former life
	if f.donors[2].gone() {
		t.Error("the later life is asked no more for the sake of the former one")
	}
}
