// Package cluster finds the other nodes and notices when they are gone. It
// wraps memberlist (SWIM with Lifeguard) and adds what a trainer needs on top:
//
//	 seeds ──► join, rejoin ──┐                          ┌─► emit(Event)
//	                          ▼                          │  one goroutine
//	Update(fact) ─► newest ─► memberlist ─► callbacks ─► mailbox
//	                fact      (gossip.go)   (its lock)   newest state per node
//
// Gossip detects, it does not agree: two nodes may hold different opinions for
// a while, an opinion may be wrong, and nothing is decided here. What follows
// from an event is the business of the view machine (cluster/view), which asks
// a node that seems to have failed before it believes so.
//
// The rules that the rest of the program may lean on:
//
//   - A node is one life of a process, named by ID and incarnation. A process
//     that was killed and started again is a new node at once; its ghost fails
//     in its own time and can't be mistaken for it.
//   - Events about one node come in order, and only when something changed:
//     Up, any number of Updates, then Left or Failed. After Failed it may come
//     Up again (a wrong suspicion, a healed network); Left is final.
//   - What piles up while emit is busy is merged: of several changes the
//     newest one is told. The memory held is bounded by the number of nodes.
//   - A node never gives up on the others. Seeds are resolved and tried again,
//     and so are the last addresses of nodes that were lost without a farewell:
//     two halves of a cut network find each other whatever their sizes.
//
// Architecture Invariant: gossip.go is the only file that knows memberlist.
package cluster

import (
	"fmt"

	"github.com/dlnode/dlnode/cluster/view"
)

// Kind says what happened to a node.
type Kind uint8

// The kinds of events.
const (
	Up     Kind = 1 + iota // it was found, or found again
	Update                 // its fact changed
	Left                   // it said good-bye; it won't come back under this incarnation
	Failed                 // it doesn't answer: dead, frozen, or cut off
)

// String returns the kind as it appears in logs.
func (k Kind) String() string {
	switch k {
	case Up:
		return "up"
	case Update:
		return "update"
	case Left:
		return "left"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Event tells of a change at another node. A node gets no events about itself.
type Event struct {
	Kind Kind
	Fact view.Fact // the newest that is known of it, also when it is gone
}
