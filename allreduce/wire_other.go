//go:build !(386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm)

package allreduce

import (
	"encoding/binary"
	"math"
)

// wire64 writes the elements of v in wire form into the scratch buffer.
func wire64(scratch *[]byte, v []float64) []byte {
	b := (*scratch)[:0]
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	*scratch = b
	return b
}

// appendWire32 appends the elements of v in wire form.
func appendWire32(dst []byte, v []float32) []byte {
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
	}
	return dst
}

// copyWire stores len(dst) elements in wire form into dst.
func copyWire(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}
