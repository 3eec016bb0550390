package main

import "golang.org/x/sys/cpu"

//go:noescape
func fma256(times int)

//go:noescape
func fma512(times int)

// multiplyAdds returns the loops that this CPU knows. Each has 12 chains, more
// than any core needs to keep its multipliers busy.
func multiplyAdds() (all []multiplyAdd) {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, multiplyAdd{fma256, 12 * 8 * 2})
	}
	if cpu.X86.HasAVX512F {
		all = append(all, multiplyAdd{fma512, 12 * 16 * 2})
	}
	return all
}
