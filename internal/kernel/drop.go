package kernel

import "github.com/dlnode/dlnode/internal/rng"

// Drop is dropout: what the words of a stream say is dropped is multiplied by +0,
// the rest by scale, so that NaN stays NaN.
//
//	for i := range x {
//		if s.Uint32(i)>>8 >= threshold {
//			dst[i] = x[i]*scale
//		} else {
//			dst[i] = x[i]*0
//		}
//	}
//
// threshold is at most 2^24. dst may be x.
func Drop(dst, x []float32, s rng.Stream, threshold uint32, scale float32) {
	same("Drop", len(dst), len(x))
	k0, k1 := s.Key()
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		active.drop(dst[lo:hi], x[lo:hi], k0, k1, uint64(lo/4), int32(threshold)-1, scale)
	}
}

// MulRows multiplies every row of x by f: dst[i,j] = x[i,j]*f[j], with
// len(x)/len(f) rows. dst may be x.
func MulRows(dst, x, f []float32) {
	same("MulRows", len(dst), len(x))
	grid("MulRows", len(x), len(f), func(lo, hi, from, to, rows int) {
		active.mulRows(dst[lo:hi], x[lo:hi], f[from:to], rows)
	})
}

// dropGeneric drops what is not above least, from block first of the stream on.
func dropGeneric(dst, x []float32, k0, k1 uint32, first uint64, least int32, scale float32) {
	s := rng.OfKey(k0, k1)
	for i := 0; i < len(x); i += 4 {
		block := s.Block(first + uint64(i/4))
		for k := range min(4, len(x)-i) {
			f := float32(0)
			if int32(block[k]>>8) > least {
				f = scale
			}
			dst[i+k] = quiet32(float32(x[i+k] * f))
		}
	}
}

func mulRowsGeneric(dst, x, f []float32, rows int) {
	for i := range rows {
		to := dst[i*len(f):][:len(f)]
		for j, v := range x[i*len(f):][:len(f)] {
			to[j] = quiet32(float32(v * f[j]))
		}
	}
}
