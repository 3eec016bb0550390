package kernel

import "math"

// The functions below take and give float32 but compute in float64, without
// fused operations: portable Go then costs what any float64 code costs, half as
// many lanes are no loss on vectors as short as activations, and the result is
// the correctly rounded one but for about one argument in a thousand. The error
// stays below 0.501 ulp: over every thirteenth float32 the greatest was 0.500005 ulp
// (Exp 0.500002, Log 0.500001, Tanh 0.500005, Sigmoid 0.500001).

// Exp sets dst[i] to e^x[i]. Large x give +Inf, very negative ones +0.
// dst may be x.
func Exp(dst, x []float32) { through("Exp", active.exp, dst, x) }

// Log sets dst[i] to the natural logarithm of x[i]: -Inf for ±0, NaN for
// negative x. dst may be x.
func Log(dst, x []float32) { through("Log", active.log, dst, x) }

// Tanh sets dst[i] to the hyperbolic tangent of x[i]; ±0 gives ±0. dst may be x.
func Tanh(dst, x []float32) { through("Tanh", active.tanh, dst, x) }

// Sigmoid sets dst[i] to 1/(1+e^-x[i]). dst may be x.
func Sigmoid(dst, x []float32) { through("Sigmoid", active.sigmoid, dst, x) }

const (
	log2e = 0x1.71547652b82fep+0
	// ln2 in two parts: the upper has 41 bits, so that k*ln2Hi is exact for the
	// |k| < 2^12 that occur.
	ln2Hi = 0x1.62e42fefa38p-1
	ln2Lo = 0x1.ef35793c7673p-45

	// roundMagic added to |t| < 2^51 leaves the nearest whole number in the
	// lowest bits; taken away again it leaves that number.
	roundMagic = 0x1.8p52

	// Beyond ±expLimit, e^x is above every float32 or rounds to 0, and 1/(1+e^x)
	// rounds to 0 or 1; beyond tanhLimit, tanh rounds to 1.
	expLimit  = 105
	tanhLimit = 16
)

// exp64 is e^x for x clamped to ±expLimit, or NaN.
func exp64(x float64) float64 {
	q, two := expm1Parts(clamp(x, expLimit))
	return float64(q*two) + two
}

// clamp limits x to ±limit and keeps NaN.
func clamp(x, limit float64) float64 {
	if x > limit {
		return limit
	}
	if x < -limit {
		return -limit
	}
	return x
}

// expm1Parts returns q and two with e^x = two*(q + 1), two a power of two and
// q = e^r - 1 for |r| <= ln2/2: r + r²/2! + ... + r^10/10!, whose relative error
// is below 2^-40.
func expm1Parts(x float64) (q, two float64) {
	t := float64(x*log2e) + roundMagic
	k := t - roundMagic
	two = math.Float64frombits((math.Float64bits(t) + 1023) << 52)
	r := (x - float64(k*ln2Hi)) - float64(k*ln2Lo)
	q = 1.0 / 3628800
	for _, c := range &expCoeff {
		q = float64(q*r) + c
	}
	return float64(q * r), two
}

// expCoeff are 1/9! down to 1/1!.
var expCoeff = [9]float64{
	1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1,
}

func expGeneric(dst, x []float32) {
	for i, e := range x {
		dst[i] = quiet32(float32(exp64(float64(e))))
	}
}

// tanhGeneric is (e^2|x| - 1)/(e^2|x| + 1) with the sign of x. The difference
// above is formed from q, which is exact where x is small.
func tanhGeneric(dst, x []float32) {
	for i, e := range x {
		a := min(math.Abs(float64(e)), tanhLimit)
		q, two := expm1Parts(a + a)
		m := float64(q*two) + (two - 1)
		dst[i] = quiet32(float32(math.Copysign(m/(m+2), float64(e))))
	}
}

func sigmoidGeneric(dst, x []float32) {
	for i, e := range x {
		dst[i] = quiet32(float32(1 / (1 + exp64(-float64(e)))))
	}
}

func logGeneric(dst, x []float32) {
	for i, e := range x {
		dst[i] = log32(e)
	}
}

// log32 takes x = m*2^k with m in [√½, √2) and f = m-1, s = f/(2+f): the
// logarithm is k*ln2 + 2(s + s³/3 + ... + s^15/15). Every float32, subnormal or
// not, is a normal float64, so that m and k are plain bit fields.
func log32(x float32) float32 {
	switch {
	case x != x || x < 0:
		return math.Float32frombits(nanBits32)
	case x == 0:
		return float32(math.Inf(-1))
	case x > math.MaxFloat32:
		return x
	}
	// Subtracting the bits of √½ puts the carry out of the mantissa at √2.
	const sqrtHalf = 0x3fe6a09e667f3bcd
	u := math.Float64bits(float64(x)) - sqrtHalf
	k := float64(int64(u) >> 52)
	f := math.Float64frombits(u&(1<<52-1)+sqrtHalf) - 1
	s := f / (2 + f)
	z := float64(s * s)
	p := 2.0 / 15
	for _, c := range &logCoeff {
		p = float64(p*z) + c
	}
	return float32(float64(k*ln2Hi) + (float64(s*p) + float64(k*ln2Lo)))
}

// logCoeff are 2/13 down to 2/1.
var logCoeff = [7]float64{2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3, 2}
