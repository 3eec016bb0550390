// Package bench measures what a network does for training: the all-reduce of a
// step by its size and by the number of ranks, the links below it, and the steps
// of a job by their phases.
//
// A conductor asks workers, one process each, on this machine or on others:
//
//	conductor ── Open, Join, Measure, Close ──► worker ◄── group, raw ring ──► worker
//	          ◄── address, times, CPU ─────────
//
// They talk by the calls that nodes have for each other (package rpc), so that
// what lets nodes train together lets them be measured. A worker does what it is
// asked and knows no sizes, turns or percentiles: those are the conductor's.
//
// What is measured is the product's own: groups of package rpc, and in them the ops
// of [train.Drill]. That a group is made of them is known to group.go alone.
//
// Bandwidth is as nccl-tests define it: see [Row].
package bench
