// Package e2e holds no code, only tests: they start real dlnode processes on
// this machine, hurt them, and look at what comes out.
//
// Every test has the same oracle: SHA-256 of the model, and of the whole state,
// that one process alone computes in an empty directory. Whatever was done to a
// run (kills, freezes, joins, damaged checkpoints, another number of nodes) its
// two digests must be the oracle's, and its journals must show how it came to
// them: every transition completed, no node ever going back, each microbatch
// computed by one rank, each epoch as many samples as the data set has.
//
//	go test ./e2e               short forms, under a minute on two cores
//	go test -v ./e2e -full      all of it, on MNIST where it is there, with figures
//
// Tests print the figures that the journals give: times from a kill to the
// moment the others know, and to their next completed step.
//
// Files: main_test.go builds the program once, fleet_test.go starts and hurts
// processes, journal_test.go reads what they wrote; the others are the stories.
package e2e
