package train

import (
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

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
