package main

import "time"

// measurePeak returns the GFLOP/s that one core's multipliers allow: the best of
// many short runs of independent multiply-adds in registers. 0: unknown here.
func measurePeak() float64 {
	var best float64
	for _, f := range multiplyAdds() {
		const times = 1 << 16
		for range 50 {
			begun := time.Now()
			f.run(times)
			best = max(best, float64(f.flops)*times/float64(time.Since(begun)))
		}
	}
	return best
}

// multiplyAdd repeats a loop of so many floating-point operations.
type multiplyAdd struct {
	run   func(times int)
	flops int
}
