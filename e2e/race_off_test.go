//go:build !race

package e2e

// raced says that the processes shall carry the race detector, as this test does.
const raced = false
