//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm

package allreduce

import "unsafe"

// On these machines memory already has the wire's byte order, so elements are sent, added and stored as
// they lie.

// wire64 returns the elements of v in wire form: the memory of v itself.
func wire64(v []float64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 8*len(v))
}

// wire32 returns the elements of v in wire form: the memory of v itself.
func wire32(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// floats64 returns the elements that lie in b, if they are aligned as elements must be.
func floats64(b []byte) ([]float64, bool) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%8 != 0 {
		return nil, false
	}
	return unsafe.Slice((*float64)(p), len(b)/8), true
}

// storeWire stores the float32 of a frame into dst.
func storeWire(dst []float32, f Frame) { f.appendPayload(wire32(dst)[:0]) }

// read64 is wire64 back: the memory of what it was given.
func read64(b []byte) []float64 {
	v, _ := floats64(b)
	return v
}

// read32 is wire32 back: the memory of what it was given.
func read32(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
