// Package chaos trains a real job with real processes, hurts them by a script, and
// looks whether the model came out to the bit.
//
//	make chaos SEED=7 FAULTS=500 EVERY=3s
//
// A seed draws a [Script]: which faults happen to whom, when, and for how long. It is
// played to nodes that live in network namespaces of their own, joined by veth links and
// a bridge, or, where those cannot be made, side by side on loopback behind proxies that
// lose and hold up what passes.
//
//	Draw(seed) ──► Script ──► run: processes, ground ──► journals ──► judge, Table
//	 (pure)                    kill, stop, cut, fill …                (pure)
//
// The oracle is that of every test of this program: SHA-256 of the model and of the whole
// state are those that one process alone comes to. Beside that every journal's chain
// holds, no transition is missing and no sample is used twice or never, no process ends
// with an error, checkpoints are whole, and a node holds no more memory and files at the
// end than at the start.
//
// Times come from the journals: all nodes share the machine's clock with whoever plays
// the script. A fault is noticed when a node that it leaves behind knows that its view is
// over, and it is got over when one of them completes its next step.
//
// Files: script.go draws, run.go plays, fleet.go holds the processes, ground.go says what
// can be done to them, netns_linux.go and loopback.go do it to their network,
// limits_linux.go to their machines; shaper.go and proxy.go hold up packets and
// connections; measure.go and table.go tell what it cost, judge.go whether it was right.
package chaos
