// Package checkpoint keeps whole states of a training run: it turns a Snapshot
// into bytes, bytes into directories that appear whole or not at all, and finds
// the newest one that can be believed.
//
//	DIR/                                the store, one per run or shared by all
//	└── 5f1c09d2a4b37e86/               a trajectory: 16 hex digits of its name T
//	    ├── 000000000400/               a checkpoint: its transition
//	    │   ├── job.json                mathematical part of the job, canonical
//	    │   ├── data.json              what the samples' numbers mean, canonical; where it is told
//	    │   ├── meta.json               the small part of the state, canonical
//	    │   ├── model.safetensors       parameters, readable by other tools
//	    │   ├── state.safetensors       optimizer slots and the like
//	    │   └── manifest.json           T, transition, size and SHA-256 of each file
//	    ├── 000000000800/
//	    ├── .tmp-000000001200-8d1f…/    being written by a living process
//	    └── .dead-000000000001-0/       being removed
//
// Three layers, each without knowledge of the next:
//
//   - Pure functions: Describe, Digest, Marshal and Unmarshal, and the package
//     safetensors below this one. A checkpoint's bytes are a function of its
//     snapshot alone. Nothing in them knows hosts, clocks, worlds or files, so
//     two processes that write the same state write the same bytes, and a digest
//     of the manifest is a digest of the state.
//   - Store: directories, over the seam FS. OS is the seam's real side; package
//     memfs is the one that fails on demand.
//   - Writer: the one goroutine that saves while training goes on. Policy is the
//     decision what it saves and keeps, as a value.
//
// # How a checkpoint appears
//
// Its files are written into a temporary directory of a unique name and synced,
// the directory is synced, renamed to its final name, and its parent is synced.
// The rename is the only moment that others see. An operating system refuses to
// rename a directory onto another that holds something; so of several processes
// that write one state into a shared directory the first wins, and the others
// verify what is there and keep it. What is there but damaged is replaced. What
// is there, whole, and different breaks the promise that a state is a function of
// its trajectory and its transition: that is ErrConflict, and nothing is touched.
//
// Removal is a rename too, to a name nobody reads, before the first file goes. A
// half removed checkpoint is therefore never mistaken for a damaged one.
//
// # What is believed
//
// A file counts when its size and SHA-256 are those in the manifest, the manifest
// when its own digest, its canonical form and its place in the tree agree. A
// checkpoint that fails is passed over and said to be: which file, what is wrong.
//
// Architecture invariant: this package imports no other room. It doesn't know
// what the numbers mean, which is why no change elsewhere can damage a checkpoint.
package checkpoint
