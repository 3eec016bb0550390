// Package lives starts real dlnode processes, hurts them, and reads what they leave
// behind: it is what packages e2e and chaos have in common.
//
// A node is a name and a directory; each of its processes is a life. A [Process] is
// one that was started here: what it tells on standard output is kept as [Told], and
// can be awaited. A [Life] is what one process wrote into its node's journal, read
// after the fact. What all lives of a run must show, whatever was done to it, is
// checked by Forwards, Complete, Shares and ExactlyOnce.
package lives
