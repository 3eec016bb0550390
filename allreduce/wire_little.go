//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm

package allreduce

import "unsafe"

// On these machines memory already has the wire's byte order, so elements are sent and stored as they
// lie. Only aligned elements are looked at as bytes, never bytes as elements.

// wire64 returns the elements of v in wire form: the memory of v itself.
func wire64(_ *[]byte, v []float64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 8*len(v))
}

// appendWire32 appends the elements of v in wire form.
func appendWire32(dst []byte, v []float32) []byte { return append(dst, bytes32(v)...) }

// bytes32 is the memory of v.
func bytes32(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// copyWire stores len(dst) elements in wire form into dst.
func copyWire(dst []float32, src []byte) { copy(bytes32(dst), src) }
