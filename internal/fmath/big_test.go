package fmath

import (
	"math"
	"math/big"
	"testing"
)

// The truth, in 320-bit arithmetic.

const prec = 320

func newBig(x float64) *big.Float { return new(big.Float).SetPrec(prec).SetFloat64(x) }

func mulBig(a, b *big.Float) *big.Float { return new(big.Float).SetPrec(prec).Mul(a, b) }

func addBig(a, b *big.Float) *big.Float { return new(big.Float).SetPrec(prec).Add(a, b) }

func subBig(a, b *big.Float) *big.Float { return new(big.Float).SetPrec(prec).Sub(a, b) }

func quoBig(a, b *big.Float) *big.Float { return new(big.Float).SetPrec(prec).Quo(a, b) }

// series returns the sum of first * z^i / (product of the divisors up to i).
func series(first, z *big.Float, divisor func(i int) int) *big.Float {
	sum, term := newBig(0), first
	for i := 1; i < 60; i++ {
		sum = addBig(sum, term)
		term = quoBig(mulBig(term, z), newBig(float64(divisor(i))))
	}
	return sum
}

// bigExp halves x thirty times, takes the series, and squares thirty times.
func bigExp(x *big.Float) *big.Float {
	y := series(newBig(1), mulBig(x, newBig(0x1p-30)), func(i int) int { return i })
	for range 30 {
		y = mulBig(y, y)
	}
	return y
}

// bigLog improves math.Log twice by Halley's method, each tripling the digits.
// (math.Log itself is wrong for subnormal numbers on amd64.)
func bigLog(x float64) *big.Float {
	m, e := math.Frexp(x)
	y, bx := newBig(math.Log(m)+float64(e)*math.Ln2), newBig(x)
	for range 2 {
		e := bigExp(y)
		y = addBig(y, mulBig(newBig(2), quoBig(subBig(bx, e), addBig(bx, e))))
	}
	return y
}

func bigTanh(x float64) *big.Float {
	e := bigExp(newBig(2 * x))
	return quoBig(subBig(e, newBig(1)), addBig(e, newBig(1)))
}

// bigSin returns sin(x + q*π/2).
func bigSin(x float64, q int) *big.Float {
	half, _, err := big.ParseFloat("1.5707963267948966192313216916397514420985846996875529104874722961539082031431044993140174126710585339910740432566411533235", 10, prec, big.ToNearestEven)
	if err != nil {
		panic(err)
	}
	k := math.Floor(x/(math.Pi/2) + 0.5)
	r := subBig(newBig(x), mulBig(newBig(k), half))
	z := new(big.Float).Neg(mulBig(r, r))
	var y *big.Float
	if q += int(k); q&1 == 0 {
		y = series(r, z, func(i int) int { return 2 * i * (2*i + 1) })
	} else {
		y = series(newBig(1), z, func(i int) int { return 2 * i * (2*i - 1) })
	}
	if q&2 != 0 {
		y.Neg(y)
	}
	return y
}

// ulps returns the distance from the truth in units of its last place.
func ulps(got float64, truth *big.Float) float64 {
	unit := math.Ldexp(1, max(truth.MantExp(nil)-53, -1074))
	d, _ := quoBig(subBig(newBig(got), truth), newBig(unit)).Float64()
	return math.Abs(d)
}

// source is a small generator of arguments (xorshift64*).
type source uint64

func (s *source) unit() float64 {
	*s ^= *s >> 12
	*s ^= *s << 25
	*s ^= *s >> 27
	return float64(uint64(*s)*2685821657736338717>>11) * 0x1p-53
}

// between draws from an interval, evenly; the rounding keeps golden arguments the
// same where the compiler fuses.
func (s *source) between(lo, hi float64) float64 { return lo + float64((hi-lo)*s.unit()) }

func TestErrorsAreBelowTheStatedBounds(t *testing.T) {
	src := source(1)
	tiny := func() float64 { return math.Ldexp(src.between(-1, 1), -int(src.between(0, 60))) }
	for _, f := range []struct {
		name  string
		limit float64
		arg   func() (x, y float64)
		f     func(x, y float64) float64
		truth func(x, y float64) *big.Float
	}{
		{
			"Exp", 1,
			func() (float64, float64) { return src.between(-745, 709.7), 0 },
			func(x, _ float64) float64 { return Exp(x) },
			func(x, _ float64) *big.Float { return bigExp(newBig(x)) },
		},
		{
			"Exp near 0", 1,
			func() (float64, float64) { return tiny(), 0 },
			func(x, _ float64) float64 { return Exp(x) },
			func(x, _ float64) *big.Float { return bigExp(newBig(x)) },
		},
		{
			"Log", 1,
			func() (float64, float64) { return math.Exp(src.between(-740, 709)), 0 },
			func(x, _ float64) float64 { return Log(x) },
			func(x, _ float64) *big.Float { return bigLog(x) },
		},
		{
			"Log near 1", 1,
			func() (float64, float64) { return 1 + tiny()/2, 0 },
			func(x, _ float64) float64 { return Log(x) },
			func(x, _ float64) *big.Float { return bigLog(x) },
		},
		{
			"Pow", 1,
			func() (float64, float64) {
				x := math.Exp(src.between(-20, 20))
				return x, src.between(-700, 700) / math.Abs(math.Log(x))
			},
			Pow,
			func(x, y float64) *big.Float { return bigExp(mulBig(bigLog(x), newBig(y))) },
		},
		{
			"Pow of Adam", 1,
			func() (float64, float64) { return src.between(0.9, 0.9999), math.Floor(src.between(1, 1e5)) },
			Pow,
			func(x, y float64) *big.Float { return bigExp(mulBig(bigLog(x), newBig(y))) },
		},
		{
			"Sin", 1,
			func() (float64, float64) { return src.between(-MaxAngle, MaxAngle), 0 },
			func(x, _ float64) float64 { return Sin(x) },
			func(x, _ float64) *big.Float { return bigSin(x, 0) },
		},
		{
			"Sin near multiples of π/2", 1,
			func() (float64, float64) { return math.Floor(src.between(-600000, 600000)) * (math.Pi / 2), 0 },
			func(x, _ float64) float64 { return Sin(x) },
			func(x, _ float64) *big.Float { return bigSin(x, 0) },
		},
		{
			"Cos", 1,
			func() (float64, float64) { return src.between(-8, 8), 0 },
			func(x, _ float64) float64 { return Cos(x) },
			func(x, _ float64) *big.Float { return bigSin(x, 1) },
		},
		{
			"Tanh", 1.5,
			func() (float64, float64) { return src.between(-3, 3), 0 },
			func(x, _ float64) float64 { return Tanh(x) },
			func(x, _ float64) *big.Float { return bigTanh(x) },
		},
		{
			"Tanh far from 0", 1.5,
			func() (float64, float64) { return src.between(3, 30), 0 },
			func(x, _ float64) float64 { return Tanh(x) },
			func(x, _ float64) *big.Float { return bigTanh(x) },
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			var worst, wx, wy float64
			for range 300 {
				x, y := f.arg()
				if got, truth := f.f(x, y), f.truth(x, y); truth.Sign() != 0 && truth.MantExp(nil) > -1073 {
					if e := ulps(got, truth); !(e <= worst) {
						worst, wx, wy = e, x, y
					}
				}
			}
			t.Logf("largest error %.3f ulp", worst)
			if !(worst < f.limit) {
				t.Errorf("largest error %v ulp, at (%x, %x), want below %v", worst, wx, wy, f.limit)
			}
		})
	}
}
