package kernel

import (
	"strings"

	"golang.org/x/sys/cpu"
)

//go:generate sh -c "cd gen && go run . -out ../kernel_amd64.s"

// native returns the variants in assembly that this CPU and its system support.
func native() []variant {
	var vs []variant
	x := &cpu.X86
	if x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512BW && x.HasAVX512VL && x.HasBMI2 {
		v := variantAVX512
		if x.HasAVX512VPCLMULQDQ {
			v.foldCRC = foldCRC
		}
		vs = append(vs, v)
	}
	if x.HasAVX2 && x.HasFMA && x.HasBMI2 {
		vs = append(vs, variantAVX2)
	}
	return vs
}

// lacks names what the least of native's variants needs and this CPU has not, or
// its system does not keep.
func lacks() string {
	var missing []string
	for _, f := range []struct {
		name string
		has  bool
	}{{"AVX2", cpu.X86.HasAVX2}, {"FMA", cpu.X86.HasFMA}, {"BMI2", cpu.X86.HasBMI2}} {
		if !f.has {
			missing = append(missing, f.name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "this processor has no " + strings.Join(missing, ", ")
}

var variantAVX512 = variant{
	name: "avx512",
	rows: 12, cols: 32, rowsOne: 14, rowsFour: 4, packs: true,
	transpose: transposeAVX2,
	product:   productAVX512,
	add:       addAVX512,
	addF64:    addF64AVX512,
	roundAdd:  roundAddAVX512,
	roundNew:  roundNewAVX512,
	narrow:    narrowAVX512,
	narrowDiv: narrowDivAVX512,
	maxBits:   maxBitsAVX512,
	unit:      unitAVX512,
	relu:      reluAVX512,
	reluGrad:  reluGradAVX512,
	exp:       expAVX512,
	tanh:      tanhAVX512,
	sigmoid:   sigmoidAVX512,
	adam:      adamAVX512,

	log:         logAVX512,
	elu:         eluAVX512,
	gelu:        geluAVX512,
	swish:       swishAVX512,
	geluGrad:    geluGradAVX512,
	swishGrad:   swishGradAVX512,
	sigmoidGrad: sigmoidGradAVX512,
	tanhGrad:    tanhGradAVX512,
	multiply:    multiplyAVX512,
	eluGrad:     eluGradAVX512,
	leaky:       leakyAVX512,
	sumLanes:    sumLanesAVX512,
	maxKey:      maxKeyAVX512,

	lstmForward:  lstmForwardAVX512,
	lstmBackward: lstmBackwardAVX512,
	gruForward:   gruForwardAVX512,
	gruBackward:  gruBackwardAVX512,
	momentum:     momentumAVX512,
	nesterov:     nesterovAVX512,
	rmsprop:      rmspropAVX512,

	poolMax:         poolMaxAVX512,
	poolMaxGrad:     poolMaxGradAVX512,
	poolAverage:     poolAverageAVX512,
	poolAverageGrad: poolAverageGradAVX512,
	sumRows:         sumRowsAVX512,
	normSums:        normSumsAVX512,
	normApply:       normApplyAVX512,
	normGradSums:    normGradSumsAVX512,
	normGrad:        normGradAVX512,
	rowSums:         rowSumsAVX512,
	rowApply:        rowApplyAVX512,
	rowGradSums:     rowGradSumsAVX512,
	rowGrad:         rowGradAVX512,

	drop:    dropAVX512,
	mulRows: mulRowsAVX512,

	pack64:      pack64AVX512,
	unpack64:    unpack64AVX512,
	unpackAdd64: unpackAdd64AVX512,
	pack32:      pack32AVX512,
	unpack32:    unpack32AVX512,
}

var variantAVX2 = variant{
	name: "avx2",
	rows: 6, cols: 16, rowsOne: 8, rowsFour: 2, packs: true,
	transpose: transposeAVX2,
	product:   productAVX2,
	add:       addAVX2,
	addF64:    addF64AVX2,
	roundAdd:  roundAddAVX2,
	roundNew:  roundNewAVX2,
	narrow:    narrowAVX2,
	narrowDiv: narrowDivAVX2,
	maxBits:   maxBitsAVX2,
	unit:      unitAVX2,
	relu:      reluAVX2,
	reluGrad:  reluGradAVX2,
	exp:       expAVX2,
	tanh:      tanhAVX2,
	sigmoid:   sigmoidAVX2,
	adam:      adamAVX2,

	log:         logAVX2,
	elu:         eluAVX2,
	gelu:        geluAVX2,
	swish:       swishAVX2,
	geluGrad:    geluGradAVX2,
	swishGrad:   swishGradAVX2,
	sigmoidGrad: sigmoidGradAVX2,
	tanhGrad:    tanhGradAVX2,
	multiply:    multiplyAVX2,
	eluGrad:     eluGradAVX2,
	leaky:       leakyAVX2,
	sumLanes:    sumLanesAVX2,
	maxKey:      maxKeyAVX2,

	lstmForward:  lstmForwardAVX2,
	lstmBackward: lstmBackwardAVX2,
	gruForward:   gruForwardAVX2,
	gruBackward:  gruBackwardAVX2,
	momentum:     momentumAVX2,
	nesterov:     nesterovAVX2,
	rmsprop:      rmspropAVX2,

	poolMax:         poolMaxAVX2,
	poolMaxGrad:     poolMaxGradAVX2,
	poolAverage:     poolAverageAVX2,
	poolAverageGrad: poolAverageGradAVX2,
	sumRows:         sumRowsAVX2,
	normSums:        normSumsAVX2,
	normApply:       normApplyAVX2,
	normGradSums:    normGradSumsAVX2,
	normGrad:        normGradAVX2,
	rowSums:         rowSumsAVX2,
	rowApply:        rowApplyAVX2,
	rowGradSums:     rowGradSumsAVX2,
	rowGrad:         rowGradAVX2,

	drop:    dropAVX2,
	mulRows: mulRowsAVX2,

	pack64:      pack64AVX2,
	unpack64:    unpack64AVX2,
	unpackAdd64: unpackAdd64AVX2,
	pack32:      pack32AVX2,
	unpack32:    unpack32AVX2,
}

// The functions of kernel_amd64.s. Each is its namesake in generic.go or
// explog.go; product is described at panel.

//go:noescape
func productAVX512(w *panel)

//go:noescape
func addAVX512(dst, src []float32)

//go:noescape
func addF64AVX512(dst, src []float64)

//go:noescape
func roundAddAVX512(acc []float64, g []float32, scale float64) (ints uint64, top uint32)

//go:noescape
func roundNewAVX512(acc []float64, g []float32, scale float64) (ints uint64, top uint32)

//go:noescape
func narrowAVX512(dst []float32, x []float64, scale float64) (sum uint64)

//go:noescape
func narrowDivAVX512(dst []float32, x []float64, scale, denom float64) (sum uint64)

//go:noescape
func maxBitsAVX512(x []float32) uint32

//go:noescape
func unitAVX512(dst []float32, src []byte)

//go:noescape
func reluAVX512(dst, x []float32)

//go:noescape
func reluGradAVX512(dx, dy, y []float32)

//go:noescape
func expAVX512(dst, x []float32)

//go:noescape
func tanhAVX512(dst, x []float32)

//go:noescape
func sigmoidAVX512(dst, x []float32)

//go:noescape
func logAVX512(dst, x []float32)

//go:noescape
func eluAVX512(dst, x []float32)

//go:noescape
func geluAVX512(dst, x []float32)

//go:noescape
func swishAVX512(dst, x []float32)

//go:noescape
func geluGradAVX512(dx, dy, x []float32)

//go:noescape
func swishGradAVX512(dx, dy, x []float32)

//go:noescape
func sigmoidGradAVX512(dx, dy, y []float32)

//go:noescape
func tanhGradAVX512(dx, dy, y []float32)

//go:noescape
func multiplyAVX512(dst, x, y []float32)

//go:noescape
func eluGradAVX512(dx, dy, y []float32)

//go:noescape
func leakyAVX512(dst, x, y []float32, slope float32)

//go:noescape
func sumLanesAVX512(l [lanes]float32, x []float32) [lanes]float32

//go:noescape
func maxKeyAVX512(x []float32) int32

//go:noescape
func adamAVX512(p, g, m, v []float32, c adamConst)

//go:noescape
func productAVX2(w *panel)

//go:noescape
func addAVX2(dst, src []float32)

//go:noescape
func addF64AVX2(dst, src []float64)

//go:noescape
func roundAddAVX2(acc []float64, g []float32, scale float64) (ints uint64, top uint32)

//go:noescape
func roundNewAVX2(acc []float64, g []float32, scale float64) (ints uint64, top uint32)

//go:noescape
func narrowAVX2(dst []float32, x []float64, scale float64) (sum uint64)

//go:noescape
func narrowDivAVX2(dst []float32, x []float64, scale, denom float64) (sum uint64)

//go:noescape
func maxBitsAVX2(x []float32) uint32

//go:noescape
func unitAVX2(dst []float32, src []byte)

//go:noescape
func reluAVX2(dst, x []float32)

//go:noescape
func reluGradAVX2(dx, dy, y []float32)

//go:noescape
func expAVX2(dst, x []float32)

//go:noescape
func tanhAVX2(dst, x []float32)

//go:noescape
func sigmoidAVX2(dst, x []float32)

//go:noescape
func logAVX2(dst, x []float32)

//go:noescape
func eluAVX2(dst, x []float32)

//go:noescape
func geluAVX2(dst, x []float32)

//go:noescape
func swishAVX2(dst, x []float32)

//go:noescape
func geluGradAVX2(dx, dy, x []float32)

//go:noescape
func swishGradAVX2(dx, dy, x []float32)

//go:noescape
func sigmoidGradAVX2(dx, dy, y []float32)

//go:noescape
func tanhGradAVX2(dx, dy, y []float32)

//go:noescape
func multiplyAVX2(dst, x, y []float32)

//go:noescape
func eluGradAVX2(dx, dy, y []float32)

//go:noescape
func leakyAVX2(dst, x, y []float32, slope float32)

//go:noescape
func sumLanesAVX2(l [lanes]float32, x []float32) [lanes]float32

//go:noescape
func maxKeyAVX2(x []float32) int32

//go:noescape
func adamAVX2(p, g, m, v []float32, c adamConst)

//go:noescape
func transposeAVX2(dst, src *float32, blocks, dstStride, srcStride int)

//go:noescape
func lstmForwardAVX512(i, f, g, o, c, next, squashed, h []float32)

//go:noescape
func gruForwardAVX512(z, r, g, b, h, next []float32)

//go:noescape
func gruBackwardAVX512(z, r, g, b, h, dh []float32)

//go:noescape
func lstmBackwardAVX512(i, f, g, o, c, squashed, dh, dc []float32)

//go:noescape
func lstmForwardAVX2(i, f, g, o, c, next, squashed, h []float32)

//go:noescape
func gruForwardAVX2(z, r, g, b, h, next []float32)

//go:noescape
func gruBackwardAVX2(z, r, g, b, h, dh []float32)

//go:noescape
func lstmBackwardAVX2(i, f, g, o, c, squashed, dh, dc []float32)

//go:noescape
func momentumAVX512(p, g, v []float32, lr, momentum float32)

//go:noescape
func nesterovAVX512(p, g, v []float32, lr, momentum float32)

//go:noescape
func rmspropAVX512(p, g, v []float32, lr, rho, rest, eps float32)

//go:noescape
func momentumAVX2(p, g, v []float32, lr, momentum float32)

//go:noescape
func nesterovAVX2(p, g, v []float32, lr, momentum float32)

//go:noescape
func rmspropAVX2(p, g, v []float32, lr, rho, rest, eps float32)

//go:noescape
func poolMaxAVX512(w pooling)

//go:noescape
func poolMaxGradAVX512(w pooling)

//go:noescape
func poolAverageAVX512(w pooling)

//go:noescape
func poolAverageGradAVX512(w pooling)

//go:noescape
func sumRowsAVX512(dst, x []float32, rows, stride int)

//go:noescape
func normSumsAVX512(sum, square []float64, x []float32, mean []float64, rows int)

//go:noescape
func normApplyAVX512(y, x []float32, mean, scale, shift []float64, rows int)

//go:noescape
func normGradSumsAVX512(sum, along []float64, dy, x []float32, mean []float64, rows int)

//go:noescape
func normGradAVX512(dx, dy, x []float32, mean, p, q, r []float64, rows int)

//go:noescape
func poolMaxAVX2(w pooling)

//go:noescape
func poolMaxGradAVX2(w pooling)

//go:noescape
func poolAverageAVX2(w pooling)

//go:noescape
func poolAverageGradAVX2(w pooling)

//go:noescape
func sumRowsAVX2(dst, x []float32, rows, stride int)

//go:noescape
func normSumsAVX2(sum, square []float64, x []float32, mean []float64, rows int)

//go:noescape
func normApplyAVX2(y, x []float32, mean, scale, shift []float64, rows int)

//go:noescape
func normGradSumsAVX2(sum, along []float64, dy, x []float32, mean []float64, rows int)

//go:noescape
func normGradAVX2(dx, dy, x []float32, mean, p, q, r []float64, rows int)

//go:noescape
func dropAVX512(dst, x []float32, k0, k1 uint32, first uint64, least int32, scale float32)

//go:noescape
func mulRowsAVX512(dst, x, f []float32, rows int)

//go:noescape
func dropAVX2(dst, x []float32, k0, k1 uint32, first uint64, least int32, scale float32)

//go:noescape
func mulRowsAVX2(dst, x, f []float32, rows int)

//go:noescape
func rowSumsAVX512(x []float32, at float64) (sum, square float64)

//go:noescape
func rowApplyAVX512(y, x []float32, scale, shift []float64, mean, inv float64)

//go:noescape
func rowGradSumsAVX512(plain, along []float64, dy, x []float32, scale []float64, mean, inv float64) (sum, dot float64)

//go:noescape
func rowGradAVX512(dx, dy, x []float32, scale []float64, mean, inv, p, q float64)

//go:noescape
func rowSumsAVX2(x []float32, at float64) (sum, square float64)

//go:noescape
func rowApplyAVX2(y, x []float32, scale, shift []float64, mean, inv float64)

//go:noescape
func rowGradSumsAVX2(plain, along []float64, dy, x []float32, scale []float64, mean, inv float64) (sum, dot float64)

//go:noescape
func rowGradAVX2(dx, dy, x []float32, scale []float64, mean, inv, p, q float64)

//go:noescape
func pack64AVX512(dst []byte, x []float64) int

//go:noescape
func unpack64AVX512(dst []float64, src []byte) (done, read int)

//go:noescape
func unpackAdd64AVX512(acc []float64, src []byte) (done, read int)

//go:noescape
func pack32AVX512(dst []byte, x []float32) int

//go:noescape
func unpack32AVX512(dst []float32, src []byte) (done, read int)

//go:noescape
func pack64AVX2(dst []byte, x []float64) int

//go:noescape
func unpack64AVX2(dst []float64, src []byte) (done, read int)

//go:noescape
func unpackAdd64AVX2(acc []float64, src []byte) (done, read int)

//go:noescape
func pack32AVX2(dst []byte, x []float32) int

//go:noescape
func unpack32AVX2(dst []float32, src []byte) (done, read int)

//go:noescape
func foldCRC(state *[foldLen]byte, p []byte)
