// Package packing writes the vectors of an all-reduce in fewer bytes, without loss.
//
// What a ring adds up are float64 that hold integers, and what it brings around
// after are float32. Their bits are far from random: neighbours in a gradient are of
// similar size, a sum of a few float32 has many zeros behind its last significant
// bit, and rows of an embedding that no sample has touched are zero altogether. So
// each block of 64 elements says once what its elements share:
//
//	           ┌sign┬─ exponent ─┬────────── mantissa ──────────┐
//	element    │ s  │ 10000101100│ 0110111001…1010110000000…0000│
//	           └────┴────┬───────┴──────────────┬───────────────┘
//	                     │ less the least       │ less the zeros that all
//	                     │ of the block         │ elements of the block end in
//	             ┌────┬──┴─┬────────────────────┴─┐
//	code         │ s  │ 101│ 0110111001…1010110  │  w bits, the same for all 64
//	             └────┴────┴──────────────────────┘
//
// The code of +0 is 0, and that of nothing else: the least exponent is taken one
// lower if an element has no other bit. A block in which all are +0 is one byte.
//
// Nothing is assumed of the elements, so there is no element that does not fit: NaN,
// Inf, -0 and fractions, as an attempt may have them that is about to be repeated,
// come back bit for bit. They only take more room: a block of 64 arbitrary float64
// has 515 bytes. What real gradients take stands in docs/packing.md.
//
// # Format
//
// The elements of a vector, in order, as blocks of 64; the last block has what
// remains. Numbers of more than a byte are little-endian.
//
//	block  = 0                            all elements are +0
//	       | header code⁸ … code⁸         w bytes for each eight elements begun
//	header = w + drop·2^7 + base·2^13     3 bytes; w from 1 to 64
//	code⁸  = the w/8 lowest bytes of eight codes, one code after the other,
//	         then w%8 bytes, of which the i-th has bit 8·(w/8)+i of each code,
//	         that of the first code lowest
//
// The highest of a code's w bits is the sign s. With m for the others the bits of the
// element are s·2^63 if m is 0, so +0 or -0, and else s·2^63 xor m·2^drop + base·2^52,
// mod 2^64. A float32 is taken for the upper half of 64 bits: its exponent begins at
// bit 55, so 55 stands for 52, and drop is at least 32. Codes behind the last element
// are 0.
//
// A vector has one packed form, whichever processor has packed it. A decoder takes any
// in which w + drop is at most 64, drop at most 52 (55), base has 11 (8) bits, and all
// elements and nothing else are there. It never reads or writes outside of what it is
// given, and allocates nothing but its error.
package packing

import (
	"fmt"

	"github.com/dlnode/dlnode/internal/kernel"
)

// MaxInts returns how many bytes n elements take at most.
func MaxInts(n int) int { return kernel.PackMax64(n) }

// MaxFloats returns how many bytes n elements take at most.
func MaxFloats(n int) int { return kernel.PackMax32(n) }

// AppendInts appends packed v to dst. It allocates only if dst lacks room for
// MaxInts(len(v)) bytes and 64 more, and what is in that room is lost.
func AppendInts(dst []byte, v []float64) []byte { return kernel.Pack64(dst, v) }

// AppendFloats appends packed v to dst. It allocates only if dst lacks room for
// MaxFloats(len(v)) bytes and 64 more, and what is in that room is lost.
func AppendFloats(dst []byte, v []float32) []byte { return kernel.Pack32(dst, v) }

// AddInts adds the elements packed in src to acc; a block of +0 leaves acc as it is. A
// sum that is NaN is 0x7ff8000000000000, as everywhere in package kernel. Unless src is len(acc) elements and
// nothing else, that is an error, and acc is half added to.
func AddInts(acc []float64, src []byte) error {
	done, read := kernel.UnpackAdd64(acc, src)
	return check(done, len(acc), src[read:], kernel.PackFault64)
}

// DecodeInts sets dst to the elements packed in src. Unless src is len(dst) elements
// and nothing else, that is an error, and dst is half set.
func DecodeInts(dst []float64, src []byte) error {
	done, read := kernel.Unpack64(dst, src)
	return check(done, len(dst), src[read:], kernel.PackFault64)
}

// DecodeFloats is DecodeInts for what AppendFloats has packed.
func DecodeFloats(dst []float32, src []byte) error {
	done, read := kernel.Unpack32(dst, src)
	return check(done, len(dst), src[read:], kernel.PackFault32)
}

// check returns the error of having unpacked done of n elements, with rest left over.
func check(done, n int, rest []byte, fault func(src []byte, n int) string) error {
	switch {
	case done < n:
		return fmt.Errorf("packing: block %d, elements [%d, %d) of %d: %s",
			done/kernel.PackBlock, done, min(done+kernel.PackBlock, n), n, fault(rest, n-done))
	case len(rest) > 0:
		return fmt.Errorf("packing: %d bytes behind the last of %d elements", len(rest), n)
	}
	return nil
}
