package train

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// fault is a rank that is proved to be at fault, and by what.
type fault struct {
	rank     int
	evidence string
}

// ExpelledError ends the life of a node that was proved to be at fault: the others go
// on without it. Its process may start anew, with nothing, and be let in again, but
// for view.MaxReturns times only.
type ExpelledError struct {
	Node     string
	Evidence string
	Final    bool // it is not let in again
}

func (e *ExpelledError) Error() string {
	if e.Final {
		return fmt.Sprintf("train: %s is expelled for good: %s", e.Node, e.Evidence)
	}
	return fmt.Sprintf("train: %s is expelled: %s", e.Node, e.Evidence)
}

// Returns tells whether a life that ended with err is followed by another one of the
// same node, which has returned so many times before.
func Returns(err error, before int) bool {
	e := (*ExpelledError)(nil)
	return errors.As(err, &e) && !e.Final && before < view.MaxReturns
}

// compareReplicas names the ranks whose state differs from the others' (I9).
func (t *Task) compareReplicas(a *Attempt, v *view.View, hs []header, vd *verdict) {
	if !slices.ContainsFunc(hs, func(h header) bool { return h.Watch != hs[0].Watch || h.Audit != hs[0].Audit }) {
		return
	}
	digests := make([][]byte, len(hs))
	for i := range hs {
		digests[i] = fmt.Appendf(nil, "%016x%016x", hs[i].Watch, hs[i].Audit)
	}
	odd, known := view.Odd(digests)
	if !known {
		vd.fatal = fmt.Errorf("train: %s", view.Undecided(v.IDs(), a.Transition))
		return
	}
	for _, rank := range odd {
		vd.faults = append(vd.faults, fault{rank, view.Differs(v.Members[rank].ID, a.Transition, len(hs)-len(odd))})
	}
}

// evidence tells it of all, for people.
func (vd *verdict) evidence() string {
	var all []string
	for _, f := range vd.faults {
		all = append(all, f.evidence)
	}
	return strings.Join(all, "; ")
}

// atFault tells that a rank is expelled when the group has ended.
func (g *generation) atFault(rank int) bool {
	return slices.ContainsFunc(g.faults, func(f fault) bool { return f.rank == rank })
}

// accuses tells that a verdict names ranks that no earlier one of the group did.
func (g *generation) accuses(vd *verdict) bool {
	return slices.ContainsFunc(vd.faults, func(f fault) bool { return !g.atFault(f.rank) })
}

// accuse takes a verdict that names ranks: the group ends, and the others go on
// without them. The farewell sees to it that all of them hear of it.
func (n *Node) accuse(now time.Time, vd *verdict) {
	g := n.gen
	g.recall = g.recall || vd.recall
	for _, f := range vd.faults {
		if !g.atFault(f.rank) {
			g.faults = append(g.faults, f)
			n.tell(now, "fault", g.view.Members[f.rank].ID, f.evidence, 0)
		}
	}
	n.partGroup(now, vd)
}

// expel parts from those at fault once their group is gone. It reports whether this
// node is one of them: then its life ends.
func (n *Node) expel(now time.Time, g *generation) (self bool) {
	for _, f := range g.faults {
		if f.rank == g.rank {
			n.exit(Exit{Err: &ExpelledError{Node: n.views.Self().ID, Evidence: f.evidence}})
			return true
		}
	}
	if g.recall {
		n.recall(now, g)
	}
	for _, f := range g.faults {
		who := g.view.Members[f.rank].Node()
		g.leaving = append(g.leaving, who)
		n.views.Expel(now, who, f.evidence)
	}
	return false
}

// ownFault is what the life of a node ends with that has found out itself that it is
// at fault.
func (n *Node) ownFault(evidence string) error {
	return &ExpelledError{Node: n.views.Self().ID, Evidence: evidence}
}
