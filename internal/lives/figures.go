package lives

import (
	"fmt"
	"slices"
	"time"
)

// Quantile returns the q-th of some times, the nearest rank; 0 of none.
func Quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	rank := int(q*float64(len(sorted))+0.5) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Figures says what some times came to.
func Figures(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %.0f ms, p99 %.0f ms, most %.0f ms (n = %d)",
		Millis(Quantile(times, 0.5)), Millis(Quantile(times, 0.99)), Millis(slices.Max(times)), len(times))
}

// Millis is a time in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
