package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// PackBlock is how many elements a packed block has; the last one may have fewer.
const PackBlock = 64

// A block in which all is +0 takes one byte; of another one that is the header.
const (
	zeroBlock  = 1
	packHeader = 3
)

// PackMax64 bounds what n packed elements take in bytes.
func PackMax64(n int) int { return packHeader*((n+PackBlock-1)/PackBlock) + 64*((n+7)/8) }

// PackMax32 is PackMax64 for float32.
func PackMax32(n int) int { return packHeader*((n+PackBlock-1)/PackBlock) + 32*((n+7)/8) }

// packSlack is how far beyond its end a packed vector may scribble.
const packSlack = 64

// Pack64 appends packed x to dst. Whatever x holds, -0 and the payload of a NaN
// included, Unpack64 brings back its bits. Block by block of 64 elements, where the
// last may be shorter and its missing ones count as +0,
//
//	u[i] = Float64bits(x[i]);  a[i] = u[i] without its sign
//	if all u[i] == 0 { emit one byte 0; continue }
//	base := the least of (a[i]-1)>>52, where a[i] != 0; 0 if there is none
//	drop := how many of the lowest bits are 0 in all a[i], 52 at most
//	c[i] = (a[i] - base<<52) >> drop where a[i] != 0, which is at least 1; 0 where a[i] == 0
//	w   := 1 + the length of the longest c[i] in bits
//	c[i] |= sign of u[i] << (w-1)
//	emit w | drop<<7 | base<<13 in three bytes, lowest first
//	emit c, each eight of its numbers in w bytes: of one number after the other the
//	     w/8 lowest bytes, then w%8 bytes, the first of which has the next bit of
//	     each number, that of the first one lowest
func Pack64(dst []byte, x []float64) []byte {
	return pack(dst, x, PackMax64(len(x)), active.pack64, pack64Generic)
}

// Pack32 is Pack64 for float32, whose bits are taken for the upper ones of 64: an
// exponent begins at bit 55 instead of 52, and base counts from there.
func Pack32(dst []byte, x []float32) []byte {
	return pack(dst, x, PackMax32(len(x)), active.pack32, pack32Generic)
}

// pack lets fast do whole blocks and slow what remains. Both may write packSlack
// bytes beyond what they return.
func pack[T any](dst []byte, x []T, most int, fast, slow func(dst []byte, x []T) int) []byte {
	n := len(dst)
	if cap(dst)-n < most+packSlack {
		dst = append(make([]byte, 0, n+most+packSlack), dst...)
	}
	dst = dst[:cap(dst)]
	whole := len(x) &^ (PackBlock - 1)
	for lo, hi := piece(0, whole); lo < hi; lo, hi = piece(hi, whole) {
		n += fast(dst[n:], x[lo:hi])
	}
	if whole < len(x) {
		n += slow(dst[n:], x[whole:])
	}
	return dst[:n]
}

// Unpack64 sets dst to what Pack64 has packed, and returns how many elements it has
// set and how many bytes of src read. If these are fewer than len(dst), a block that
// PackFault64 finds fault with begins there.
func Unpack64(dst []float64, src []byte) (done, read int) {
	return unpack(dst, src, active.unpack64, unpack64Generic)
}

// UnpackAdd64 adds what Pack64 has packed: acc[i] = acc[i] + x[i]. A block of +0 leaves
// acc as it is.
func UnpackAdd64(acc []float64, src []byte) (done, read int) {
	return unpack(acc, src, active.unpackAdd64, unpackAdd64Generic)
}

// Unpack32 is Unpack64 for what Pack32 has packed.
func Unpack32(dst []float32, src []byte) (done, read int) {
	return unpack(dst, src, active.unpack32, unpack32Generic)
}

// unpack lets fast do whole blocks. It stops early near the end of src, beyond which
// it might read, and at what it finds wrong; slow takes over then.
func unpack[T any](dst []T, src []byte, fast, slow func(dst []T, src []byte) (done, read int)) (done, read int) {
	whole := len(dst) &^ (PackBlock - 1)
	for lo, hi := piece(0, whole); lo < hi && lo == done; lo, hi = piece(hi, whole) {
		d, r := fast(dst[lo:hi], src[read:])
		done, read = done+d, read+r
	}
	d, r := slow(dst[done:], src[read:])
	return done + d, read + r
}

// PackFault64 says what is wrong with the first block of src, "" if nothing is: of
// which n elements remain to be unpacked.
func PackFault64(src []byte, n int) string { return format64.fault(src, n) }

// PackFault32 is PackFault64 for float32.
func PackFault32(src []byte, n int) string { return format32.fault(src, n) }

// packFormat is where the parts of a number lie in the 64 bits of its code.
type packFormat struct {
	one   uint // bit at which the exponent begins
	zeros uint // bits below all numbers, always 0
}

var (
	format64 = packFormat{one: 52}
	format32 = packFormat{one: 55, zeros: 32}
)

// packed is a block's header, w 0 for a block of +0.
type packed struct{ w, drop, base uint }

const signBit = 1 << 63

// describe returns the header that a block's numbers need. any is the bitwise or of
// all, ones that without signs, least the smallest a-1 (that of 0 is the greatest of
// all), most the largest a.
func (f packFormat) describe(any, ones, least, most uint64) packed {
	if any == 0 {
		return packed{}
	}
	h := packed{base: uint(min(least, most) >> f.one), drop: min(uint(bits.TrailingZeros64(ones)), f.one)}
	h.w = 1 + uint(bits.Len64((most-uint64(h.base)<<f.one)>>h.drop))
	return h
}

// parse reads the header of a block, and returns its length.
func (f packFormat) parse(src []byte) (h packed, length int, fault string) {
	switch {
	case len(src) == 0:
		return h, 0, "missing"
	case src[0] == 0:
		return h, zeroBlock, ""
	case len(src) < packHeader:
		return h, 0, fmt.Sprintf("%d bytes of a header of %d", len(src), packHeader)
	}
	word := uint(src[0]) | uint(src[1])<<8 | uint(src[2])<<16
	h = packed{w: word & 127, drop: word >> 7 & 63, base: word >> 13}
	if !f.has(h) {
		return h, 0, fmt.Sprintf("%d bits a number, %d dropped, base %d", h.w, h.drop, h.base)
	}
	return h, packHeader, ""
}

// has reports whether the format has numbers for all codes of such a block.
func (f packFormat) has(h packed) bool {
	return h.w > 0 && h.w+h.drop <= 64 && h.drop >= f.zeros && h.drop <= f.one && h.base < 1<<(63-f.one)
}

func (f packFormat) fault(src []byte, n int) string {
	h, length, fault := f.parse(src)
	if size := int(h.w) * ((min(n, PackBlock) + 7) / 8); fault == "" && len(src) < length+size {
		return fmt.Sprintf("%d of %d bytes", len(src)-length, size)
	}
	return fault
}

// block is a block's numbers as bits, and their codes.
type block [PackBlock]uint64

// pack encodes the first n numbers of b, the rest of which is 0.
func (f packFormat) pack(dst []byte, b *block, n int) int {
	var any, ones, most uint64
	least := uint64(math.MaxUint64)
	for _, u := range b[:n] {
		a := u &^ signBit
		any, ones, least, most = any|u, ones|a, min(least, a-1), max(most, a)
	}
	h := f.describe(any, ones, least, most)
	if h.w == 0 {
		dst[0] = 0
		return zeroBlock
	}
	word := h.w | h.drop<<7 | h.base<<13
	dst[0], dst[1], dst[2] = byte(word), byte(word>>8), byte(word>>16)
	base := uint64(h.base) << f.one
	for i, u := range b[:n] {
		b[i] = u >> 63 << (h.w - 1)
		if a := u &^ signBit; a != 0 {
			b[i] |= (a - base) >> h.drop
		}
	}
	size := packHeader
	for i := 0; i < n; i += 8 {
		putEight(dst[size:], (*[8]uint64)(b[i:]), h.w)
		size += int(h.w)
	}
	return size
}

// putEight emits eight codes of w bits. It may write 64 bytes, whatever w is.
func putEight(dst []byte, c *[8]uint64, w uint) {
	whole := w / 8
	at, above := dst, uint64(0)
	for i, c := range c {
		binary.LittleEndian.PutUint64(at, c)
		at = at[whole:]
		above |= c >> (8 * whole) << (8 * i)
	}
	if w%8 != 0 {
		binary.LittleEndian.PutUint64(at, transposeBits(above))
	}
}

// getEight is the reverse of putEight; it may read 64 bytes.
func getEight(c *[8]uint64, src []byte, w uint) {
	whole := w / 8
	above := uint64(0)
	if w%8 != 0 {
		above = transposeBits(binary.LittleEndian.Uint64(src[8*whole:]) & (1<<(8*(w%8)) - 1))
	}
	mask := uint64(1)<<(8*whole) - 1
	for i := range c {
		c[i] = binary.LittleEndian.Uint64(src)&mask | above>>(8*i)&255<<(8*whole)
		src = src[whole:]
	}
}

// transposeBits takes x for eight rows of eight bits and turns rows into columns
// (Warren, Hacker's Delight, 7-3).
func transposeBits(x uint64) uint64 {
	t := (x ^ x>>7) & 0x00aa00aa00aa00aa
	x ^= t ^ t<<7
	t = (x ^ x>>14) & 0x0000cccc0000cccc
	x ^= t ^ t<<14
	t = (x ^ x>>28) & 0x00000000f0f0f0f0
	return x ^ t ^ t<<28
}

// unpack decodes the first n numbers of a block, n not 0, and returns its length in
// bytes: 0 if there is something wrong with it.
func (f packFormat) unpack(b *block, src []byte, n int) int {
	h, length, fault := f.parse(src)
	if fault != "" {
		return 0
	}
	if h.w == 0 {
		clear(b[:n])
		return length
	}
	groups := (n + 7) / 8
	size := length + groups*int(h.w)
	if len(src) < size {
		return 0
	}
	if len(src) < length+(groups-1)*int(h.w)+64 {
		var padded [packHeader + 512 + 64]byte
		copy(padded[:], src[:size])
		src = padded[:]
	}
	for i := range groups {
		getEight((*[8]uint64)(b[8*i:]), src[length+i*int(h.w):], h.w)
	}
	base := uint64(h.base) << f.one
	for i, c := range b[:n] {
		a := c &^ (1 << (h.w - 1))
		b[i] = c >> (h.w - 1) << 63
		if a != 0 {
			b[i] ^= a<<h.drop + base
		}
	}
	return size
}

func pack64Generic(dst []byte, x []float64) (n int) {
	for len(x) > 0 {
		var b block
		some := x[:min(len(x), PackBlock)]
		for i, x := range some {
			b[i] = math.Float64bits(x)
		}
		n += format64.pack(dst[n:], &b, len(some))
		x = x[len(some):]
	}
	return n
}

func pack32Generic(dst []byte, x []float32) (n int) {
	for len(x) > 0 {
		var b block
		some := x[:min(len(x), PackBlock)]
		for i, x := range some {
			b[i] = uint64(math.Float32bits(x)) << 32
		}
		n += format32.pack(dst[n:], &b, len(some))
		x = x[len(some):]
	}
	return n
}

func unpack64Generic(dst []float64, src []byte) (done, read int) {
	var b block
	for done < len(dst) {
		n := min(PackBlock, len(dst)-done)
		size := format64.unpack(&b, src[read:], n)
		if size == 0 {
			break
		}
		for i, u := range b[:n] {
			dst[done+i] = math.Float64frombits(u)
		}
		done, read = done+n, read+size
	}
	return done, read
}

func unpackAdd64Generic(acc []float64, src []byte) (done, read int) {
	var b block
	for done < len(acc) {
		n := min(PackBlock, len(acc)-done)
		size := format64.unpack(&b, src[read:], n)
		if size == 0 {
			break
		}
		some := b[:n]
		if size == zeroBlock {
			some = nil
		}
		for i, u := range some {
			acc[done+i] = quiet64(acc[done+i] + math.Float64frombits(u))
		}
		done, read = done+n, read+size
	}
	return done, read
}

func unpack32Generic(dst []float32, src []byte) (done, read int) {
	var b block
	for done < len(dst) {
		n := min(PackBlock, len(dst)-done)
		size := format32.unpack(&b, src[read:], n)
		if size == 0 {
			break
		}
		for i, u := range b[:n] {
			dst[done+i] = math.Float32frombits(uint32(u >> 32))
		}
		done, read = done+n, read+size
	}
	return done, read
}
