package allreduce

import (
	"encoding/binary"
	"math"

	"github.com/dlnode/dlnode/internal/kernel"
)

// addWire adds len(dst) elements in wire form to dst.
func addWire(dst []float64, src []byte) {
	if v, ok := floats64(src); ok {
		kernel.AddF64(dst, v)
		return
	}
	for i := range dst {
		dst[i] += float64At(src[8*i:])
	}
}

// setWire stores len(dst) elements in wire form into dst.
func setWire(dst []float64, src []byte) {
	if v, ok := floats64(src); ok {
		copy(dst, v)
		return
	}
	for i := range dst {
		dst[i] = float64At(src[8*i:])
	}
}

// addFloats adds src to dst.
func addFloats(dst, src []float64) { kernel.AddF64(dst, src) }

func float64At(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }
