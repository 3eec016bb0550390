package allreduce

import (
	"encoding/binary"
	"math"
)

// addWire adds len(dst) elements in wire form to dst. A payload may lie at any address, so it is read
// through encoding/binary, which the compiler turns into plain loads.
func addWire(dst []float64, src []byte) {
	for len(dst) >= 4 && len(src) >= 32 {
		dst[0] += float64At(src[0:8])
		dst[1] += float64At(src[8:16])
		dst[2] += float64At(src[16:24])
		dst[3] += float64At(src[24:32])
		dst, src = dst[4:], src[32:]
	}
	for i := range dst {
		dst[i] += float64At(src[8*i:])
	}
}

func float64At(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }
