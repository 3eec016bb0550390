// Command gen writes the assembly of package kernel, for AVX2 with FMA and for
// AVX-512. It lives in a module of its own, so that who builds dlnode needs no
// assembler library:
//
//	go generate ./internal/kernel
//
// The functions are declared in kernel/native_amd64.go, from which the generator
// takes parameters and the layout of structures. The two instruction sets share
// one description of every function; what differs between them (width, masks,
// blends) is in isa.go.
package main

import . "github.com/mmcloughlin/avo/build"

func main() {
	Package("github.com/dlnode/dlnode/internal/kernel")
	for _, s := range []isa{avx2, avx512} {
		product(s)
		add(s)
		addF64(s)
		round(s, "roundAdd", false)
		round(s, "roundNew", true)
		narrow(s, "narrow", false)
		narrow(s, "narrowDiv", true)
		maxBits(s)
		unit(s)
		relu(s)
		reluGrad(s)
		through(s, "exp", exp64)
		through(s, "tanh", tanh64)
		through(s, "sigmoid", sigmoid64)
		through(s, "log", log64)
		through(s, "elu", elu64)
		through(s, "gelu", gelu64)
		slopes(s, "geluGrad", geluGrad64)
		through(s, "swish", swish64)
		slopes(s, "swishGrad", swishGrad64)
		sigmoidGrad(s)
		tanhGrad(s)
		times(s)
		eluGrad(s)
		leaky(s)
		sumLanes(s)
		maxKey(s)
		adam(s)
		lstmForward(s)
		lstmBackward(s)
		gruForward(s)
		gruBackward(s)
		poolMax(s)
		poolMaxGrad(s)
		poolAverage(s)
		poolAverageGrad(s)
		sumRows(s)
		normSums(s)
		normApply(s)
		normGradSums(s)
		normGrad(s)
		rowSums(s)
		rowApply(s)
		rowGradSums(s)
		rowGrad(s)
		drop(s)
		mulRows(s)
		momentum(s, "momentum", false)
		momentum(s, "nesterov", true)
		rmsprop(s)
		pack(s, 8)
		unpack(s, 8, false)
		unpack(s, 8, true)
		pack(s, 4)
		unpack(s, 4, false)
	}
	transpose()
	foldCRC()
	Generate()
}
