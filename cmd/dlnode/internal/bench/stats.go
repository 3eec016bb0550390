package bench

import (
	"slices"
	"time"
)

// Quantiles of a number of times.
type Quantiles struct {
	Median, P10, P90 time.Duration
}

// QuantilesOf returns the nearest ranks of times, which it sorts; all are 0 if there are none.
func QuantilesOf(times []time.Duration) Quantiles {
	slices.Sort(times)
	at := func(tenths int) time.Duration {
		if len(times) == 0 {
			return 0
		}
		return times[min(len(times)*tenths/10, len(times)-1)]
	}
	return Quantiles{Median: at(5), P10: at(1), P90: at(9)}
}

// Mean of a number of times, 0 of none.
func Mean(times []time.Duration) (sum time.Duration) {
	for _, t := range times {
		sum += t
	}
	return sum / time.Duration(max(1, len(times)))
}

// AlgorithmBandwidth is how fast an all-reduce of a vector of so many bytes seems to
// whoever waits for it, in GB/s.
func AlgorithmBandwidth(bytes int64, took time.Duration) float64 {
	return ratio(float64(bytes)/1e9, took.Seconds())
}

// BusBandwidth is what each rank of a ring has to send, and to receive, at least, in
// GB/s: 2(n−1)/n of the vector. It can be compared with a link's speed, whatever the
// number of ranks.
func BusBandwidth(bytes int64, took time.Duration, world int) float64 {
	return AlgorithmBandwidth(bytes, took) * 2 * float64(world-1) / float64(world)
}

// ratio is a/b, and 0 where nothing was measured.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
