//go:build !(386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm)

package allreduce

import (
	"encoding/binary"
	"math"
)

// wire64 returns the elements of v in wire form, in memory of its own.
func wire64(v []float64) []byte {
	b := make([]byte, 0, 8*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

// wire32 returns the elements of v in wire form, in memory of its own.
func wire32(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// floats64 tells that elements do not lie in b as they are in memory.
func floats64([]byte) ([]float64, bool) { return nil, false }

// storeWire stores the float32 of a frame into dst.
func storeWire(dst []float32, f Frame) {
	src := f.appendPayload(nil)
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// read64 is wire64 back, in memory of its own.
func read64(b []byte) []float64 {
	v := make([]float64, len(b)/8)
	setWire(v, b)
	return v
}

// read32 is wire32 back, in memory of its own.
func read32(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	storeWire(v, Frame{Payload: b})
	return v
}
