// Package sim runs a whole cluster in one goroutine, in virtual time, from one
// seed: the same seed is the same history, event for event.
//
// What runs is the product. A life of a node is a [train.Host] with all that it
// holds (the view machine, the training loop, state transfer, early stopping), an
// engine that computes real gradients, an [allreduce.Group] for each view, and a
// checkpoint store. Simulated is what lies outside of them:
//
//	calls and streams   latency, loss, duplication, one-way and symmetric cuts,
//	                    resets; what a socket holds back comes when the cut heals
//	gossip              a model of memberlist: late, relayed, sometimes wrong
//	disks               memfs: full, failing, torn at a loss of power, rotting
//	clocks              each node has its own: offset, rate, jumps
//	processes           kill, loss of power, freeze, leave, slow, late
//
// [Faults] says what goes wrong, [Run] plays one schedule. Checks (check.go) look
// from outside at what crosses the borders; of what a node believes they take only
// which view it is in. The oracle of all is the SHA-256 of the final state,
// recorded from one node in a perfect world.
package sim
