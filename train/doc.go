// Package train is the training loop: a state, one function that moves it, and
// the machine and drivers that have it moved by however many nodes there are.
//
//	Task     job, data, model and plan: what a trajectory is a function of
//	State    S: all that training knows, equal bit for bit on every node
//	Engine   computes a rank's share of a step as exact sums
//	Node     one node as a pure machine: events in, effects out
//	Host     carries out what a Node wants, by a World
//	Run      the World of sockets, files and goroutines
//	Fit      the driver for one process alone: the oracle, and the library's door
//
// A state moves by transitions: an update, an evaluation, the return of the best
// weights, the finish. Each is an attempt that runs over all microbatches of a
// step, whoever computes them; one all-reduce brings every rank the totals and
// what the others say of them (header); every rank judges that alone and alike,
// and either repeats the attempt, ends the run, or commits. Until the commit
// nothing of S is touched, so an attempt that a failure interrupts has never
// been: those who are left make it again.
//
// Architecture invariants: world size, rank, time and history of failures enter
// no value of S. There is one generation at a time, and it is gone, all of its
// goroutines included, before the next begins. Whatever a node decides about
// training (that a sum overflowed, to stop early, that a replica differs) it
// decides from values that every node holds, so nobody has to be told.
package train
