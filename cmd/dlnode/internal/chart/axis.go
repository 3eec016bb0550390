package chart

import (
	"math"
	"strconv"

	"gonum.org/v1/plot"
)

// scale says how an axis is labelled: about so many round numbers.
type scale struct {
	labels int
	whole  bool // only whole numbers
}

// Ticks implements plot.Ticker.
func (s scale) Ticks(lo, hi float64) []plot.Tick {
	step := roundUp((hi - lo) / float64(s.labels))
	if s.whole {
		step = math.Max(1, math.Ceil(step))
	}
	var all []plot.Tick
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+step*1e-9; i++ {
		all = append(all, plot.Tick{Value: i * step, Label: label(i*step, step)})
	}
	return all
}

// roundUp returns the next of 1, 2, 5, 10, 20 ... times a power of ten.
func roundUp(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if x <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// label writes a multiple of step as short as it can be told from the next.
func label(x, step float64) string {
	switch a := math.Abs(x); {
	case a < step/2:
		return "0"
	case step < 1e-4:
		return strconv.FormatFloat(x, 'e', max(0, int(math.Floor(math.Log10(a)*(1+1e-12)))-exponent(step)), 64)
	case a >= 1e6 || step >= 1e5:
		return strconv.FormatFloat(x/1e6, 'f', max(0, -exponent(step/1e6)), 64) + "M"
	case a >= 1e4 || step >= 1e3:
		return strconv.FormatFloat(x/1e3, 'f', max(0, -exponent(step/1e3)), 64) + "k"
	}
	return strconv.FormatFloat(x, 'f', max(0, -exponent(step)), 64)
}

// exponent is that of the first decimal digit.
func exponent(x float64) int { return int(math.Floor(math.Log10(x) + 1e-9)) }

// room widens a range of values so that nothing lies on the frame. floor is what
// the values cannot go below.
func room(lo, hi, floor float64) (float64, float64) {
	if lo > hi {
		return 0, 1
	}
	by := (hi - lo) * 0.05
	if by == 0 {
		by = math.Max(math.Abs(lo)*0.1, 1e-9)
	}
	return math.Max(lo-by, math.Min(floor, lo)), hi + by
}
