package fmath

import "math"

// Erf returns the error function of x within 1 ulp or so (FreeBSD's s_erf.c).
// Erf(±0) = ±0, Erf(±Inf) = ±1, Erf(NaN) = NaN.
func Erf(x float64) float64 {
	z := math.Abs(x)
	switch {
	case x != x:
		return math.Float64frombits(nan64)
	case z < 0.84375:
		return erfSmall(x)
	case z < 1.25:
		s := z - 1
		z = 8.45062911510467529297e-01 + horner(s, erfNearOne[0][:])/horner(s, erfNearOne[1][:])
	case z < 6:
		z = 1 - erfcLarge(z)
	default:
		z = 1
	}
	return math.Copysign(z, x)
}

func erfSmall(x float64) float64 {
	if math.Abs(x) < 0x1p-28 {
		return x + float64(1.28379167095512586316e-01*x)
	}
	s := float64(x * x)
	return x + float64(x*(horner(s, erfNearZero[0][:])/horner(s, erfNearZero[1][:])))
}

// erfcLarge is 1 - erf(x) for x in [1.25, 6). The square of x is split where it
// is exact.
func erfcLarge(x float64) float64 {
	s := 1 / float64(x*x)
	var y float64
	if x < 1/0.35 {
		y = horner(s, erfcMiddle[0][:]) / horner(s, erfcMiddle[1][:])
	} else {
		y = horner(s, erfcFar[0][:]) / horner(s, erfcFar[1][:])
	}
	z := math.Float64frombits(math.Float64bits(x) & 0xffffffff00000000)
	return float64(Exp(-float64(z*z)-0.5625)*Exp(float64((z-x)*(z+x))+y)) / x
}

// horner is c[0] + x·(c[1] + x·(...)).
func horner(x float64, c []float64) float64 {
	y := c[len(c)-1]
	for i := len(c) - 2; i >= 0; i-- {
		y = c[i] + float64(x*y)
	}
	return y
}

// Numerators and denominators, in x², x-1, and 1/x² twice.
var (
	erfNearZero = [2][6]float64{
		{1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02, -5.77027029648944159157e-03, -2.37630166566501626084e-05},
		{1, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03, 1.32494738004321644526e-04, -3.96022827877536812320e-06},
	}
	erfNearOne = [2][7]float64{
		{-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01, 3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02, -2.16637559486879084300e-03},
		{1, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02, 1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02},
	}
	erfcMiddle = [2][9]float64{
		{-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01, -6.23753324503260060396e+01, -1.62396669462573470355e+02, -1.84605092906711035994e+02, -8.12874355063065934246e+01, -9.81432934416914548592e+00},
		{1, 1.96512716674392571292e+01, 1.37657754143519042600e+02, 4.34565877475229228821e+02, 6.45387271733267880336e+02, 4.29008140027567833386e+02, 1.08635005541779435134e+02, 6.57024977031928170135e+00, -6.04244152148580987438e-02},
	}
	erfcFar = [2][8]float64{
		{-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01, -1.60636384855821916062e+02, -6.37566443368389627722e+02, -1.02509513161107724954e+03, -4.83519191608651397019e+02},
		{1, 3.03380607434824582924e+01, 3.25792512996573918826e+02, 1.53672958608443695994e+03, 3.19985821950859553908e+03, 2.55305040643316442583e+03, 4.74528541206955367215e+02, -2.24409524465858183362e+01},
	}
)
