//go:build amd64 || arm64

// Package fpmode spoils the floating-point unit, as a library in another language
// may have done before a Go program's own code runs. Tests use it to see that a
// program notices.
package fpmode

import "runtime"

// Flushed runs f on a thread that takes subnormal numbers for zero.
func Flushed(f func()) { under(flush, f) }

// RoundedDown runs f on a thread that rounds towards minus infinity.
func RoundedDown(f func()) { under(down, f) }

// under runs f with some bits of the control register set.
func under(bits uint64, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := control()
	defer setControl(was)
	setControl(was | bits)
	f()
}

// control returns the floating-point control register of this thread: MXCSR on
// amd64, FPCR on arm64.
//
//go:noescape
func control() uint64

//go:noescape
func setControl(bits uint64)
