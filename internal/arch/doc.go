// Package arch holds no code, only tests: it checks what the project says of
// itself and no compiler checks. ARCHITECTURE.md has the drawing.
//
// Three kinds of promise are kept here.
//
//   - Arrows. Each room may import the rooms that the table in rules_test.go
//     gives it, and no other. No pillar imports a pillar, so each can be read,
//     tested and replaced alone. Each foreign library has a home: gossip is one
//     file, gRPC one package.
//   - Pure rooms. What decides about bits or views has no network, no files, no
//     clock, no goroutine and no global randomness. Time is an argument, effects
//     are values. That is why a simulator can run it and a failure can be
//     replayed.
//   - One rounding for each operation. A compiler may fuse x*y + z into an
//     instruction that rounds once; it does on arm64 and with GOAMD64=v3, and
//     the bits differ from amd64's. The rooms on the path of a training step are
//     compiled for both, and every fused instruction must stem from a line that
//     asks for it by name.
//
// Each rule is also shown a small program that breaks it: a check that can't
// fail checks nothing.
package arch
