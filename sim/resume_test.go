package sim

import (
	"testing"
	"time"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/checkpoint/memfs"
	"github.com/dlnode/dlnode/train"
)

// A process dies between the rename and the sync of the directory of the final checkpoint. The next one finds it,
// says that the run is finished, and then the power fails.
func TestWhoStartsFromAFinalStateMakesItDurable(t *testing.T) {
	for _, l := range theLoads(t) {
		c := newCluster(alone(l))
		c.boot("node-1", 1)
		x := c.lives[0]
		armed := false
		before := x.process.Before
		x.process.Before = func(op memfs.Op) error {
			if armed && op.Name == "syncdir" {
				x.disk.how = killed
				return memfs.ErrKilled
			}
			if op.Name == "rename" && x.host.Node().State().Next == train.Done {
				armed = true
			}
			return before(op)
		}
		c.until(time.Minute, func() bool { return len(c.living()) == 0 })
		c.boot("node-1", 1)
		c.until(time.Minute, func() bool { return len(c.living()) == 0 })
		y := c.lives[1]
		if y.exit == nil || !y.exit.Finished {
			t.Fatalf("%+v", y.exit)
		}
		y.disk.PowerLoss(nil)
		store, err := checkpoint.Open(y.disk.Process(), storeDir)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := train.LoadState(y.task, store, func(train.Event) {}); err != nil || s.Next != train.Done {
			t.Errorf("%s: it said that it was finished (%+v); after a loss of power its disk has transition %d: %v", l.Name, *y.exit, s.Transition, err)
		}
	}
}
