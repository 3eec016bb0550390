package sim

import (
	"testing"

	"github.com/dlnode/dlnode/train"
)

// TestASlowNodeIsGivenLess: a node that computes five times slower than the others
// has less to do within twenty steps, all go on faster than they would with equal
// shares, and when it has recovered it gets its share again. The final state is
// that of one node all the same.
func TestASlowNodeIsGivenLess(t *testing.T) {
	perSeed(t, 4, func(t *testing.T, seed uint64) {
		named(t, directed(seed, long(t), 3), func(c *Cluster) {
			share := map[string]int{}
			c.see(func(l *life, e any) {
				if done, ok := e.(train.Committed); ok && done.Kind == train.Update {
					share[l.id] = done.Range.Len()
				}
			})
			c.begin(6)
			begun := c.now
			c.train(40)
			even := c.now - begun

			c.of("node-2").slow = 5
			c.train(20)
			if share["node-2"] > 1 {
				c.missed("node-2, five times slower, computes %d of 6 microbatches after 20 steps", share["node-2"])
			}
			begun = c.now
			c.train(40)
			if took := c.now - begun; took > 5*even/2 { // 5 times even with equal shares, 3/2 at best
				c.missed("40 steps take %s with a slow node, %s without", took, even)
			}
			c.of("node-2").slow = 1
			c.train(150)
			if share["node-2"] == 0 {
				c.missed("node-2 has recovered and computes nothing")
			}
		})
	})
}
