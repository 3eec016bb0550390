// Package pages takes memory for long vectors: slices as make gives them, of zeros,
// for which the system is asked to use large pages where it has them. A step walks
// through all of them, and with pages of 4 KiB a good part of it goes into finding
// where they lie.
//
// It is advice: values, lengths and errors are those of make, with or without.
package pages

import "unsafe"

// Float32s returns n zeros.
func Float32s(n int) []float32 {
	x := make([]float32, n)
	advise(unsafe.Pointer(unsafe.SliceData(x)), 4*uintptr(n))
	return x
}

// Float64s returns n zeros.
func Float64s(n int) []float64 {
	x := make([]float64, n)
	advise(unsafe.Pointer(unsafe.SliceData(x)), 8*uintptr(n))
	return x
}

// large is the size of a large page on amd64, and on arm64 with small ones of 4 KiB.
const large = 2 << 20

// whole returns the large pages that lie whole within n bytes at p, nil if they are
// too few to be worth a call.
func whole(p unsafe.Pointer, n uintptr) []byte {
	const worth = 2 * large
	before := -uintptr(p) & (large - 1)
	if n < before+worth {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(p, before)), (n-before)&^(large-1))
}
