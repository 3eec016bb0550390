//go:build unix

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// quantile returns the q-th of some times, the nearest rank; 0 of none.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	rank := int(q*float64(len(sorted))+0.5) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// figures says what some times came to.
func figures(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %.0f ms, p99 %.0f ms, most %.0f ms (n = %d)",
		ms(quantile(times, 0.5)), ms(quantile(times, 0.99)), ms(slices.Max(times)), len(times))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
