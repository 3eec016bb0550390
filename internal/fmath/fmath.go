// Package fmath holds the scalar functions of a trajectory: the same bits on
// every machine, for every compiler setting.
//
// Package math can't give that. Its Exp is hand-written assembly on some
// architectures and Go on others, and its Log, Pow, Sin, Cos and Tanh are Go
// whose products the compiler may fuse into the following addition (it does on
// arm64, ppc64le, riscv64, s390x, and on amd64 with GOAMD64=v3). A fused
// product is rounded once instead of twice, so a last bit moves, and with it
// every bit of the model that follows.
//
// Here every product that feeds an addition is written float64(x*y): the
// conversion is a rounding the language promises to keep. Where one rounding is
// wanted, math.FMA says so, whose result is exact by contract, in hardware or
// not. What is borrowed from package math otherwise is exact by nature: Sqrt,
// Abs, Floor and the bit casts.
//
// The functions are for schedules, bias corrections, initialisers and rotations,
// a few calls for each step. What runs over vectors is in internal/kernel.
//
// Accuracy, measured against 320-bit arithmetic by the tests:
//
//	Exp, Log, Sin, Cos  < 1 ulp        Pow  < 1 ulp        Tanh  < 1.5 ulp
package fmath

import "math/bits"

// Log2Ceil returns the smallest e with 1<<e >= n. It panics unless n > 0.
func Log2Ceil(n int) int {
	if n <= 0 {
		panic("fmath: Log2Ceil of a number that is not positive")
	}
	return bits.Len(uint(n - 1))
}
