package fmath

import (
	"math"
	"testing"
)

func TestSpecialArguments(t *testing.T) {
	inf, nan, minus := math.Inf(1), math.Float64frombits(nan64), math.Copysign(0, -1)
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"Exp(0)", Exp(0), 1},
		{"Exp(-0)", Exp(minus), 1},
		{"Exp(+Inf)", Exp(inf), inf},
		{"Exp(-Inf)", Exp(-inf), 0},
		{"Exp(NaN)", Exp(math.NaN()), nan},
		{"Exp(710)", Exp(710), inf},
		{"Exp(-746)", Exp(-746), 0},
		{"Exp(-745)", Exp(-745), 0x1p-1074},
		{"Log(0)", Log(0), -inf},
		{"Log(1)", Log(1), 0},
		{"Log(-1)", Log(-1), nan},
		{"Log(+Inf)", Log(inf), inf},
		{"Log(-Inf)", Log(-inf), nan},
		{"Pow(0, 0)", Pow(0, 0), 1},
		{"Pow(1, NaN)", Pow(1, nan), 1},
		{"Pow(NaN, 0)", Pow(nan, 0), 1},
		{"Pow(2, NaN)", Pow(2, nan), nan},
		{"Pow(0, 2)", Pow(0, 2), 0},
		{"Pow(0, -2)", Pow(0, -2), inf},
		{"Pow(+Inf, 2)", Pow(inf, 2), inf},
		{"Pow(+Inf, -2)", Pow(inf, -2), 0},
		{"Pow(2, +Inf)", Pow(2, inf), inf},
		{"Pow(0.5, +Inf)", Pow(0.5, inf), 0},
		{"Pow(2, -Inf)", Pow(2, -inf), 0},
		{"Pow(-2, 3)", Pow(-2, 3), -8},
		{"Pow(-2, 2)", Pow(-2, 2), 4},
		{"Pow(-2, 0.5)", Pow(-2, 0.5), nan},
		{"Pow(2, 10)", Pow(2, 10), 1024},
		{"Pow(2, -1074)", Pow(2, -1074), 0x1p-1074},
		{"Pow(10, 400)", Pow(10, 400), inf},
		{"Sin(0)", Sin(0), 0},
		{"Sin(-0)", Sin(minus), minus},
		{"Sin(Inf)", Sin(inf), nan},
		{"Cos(0)", Cos(0), 1},
		{"Cos(NaN)", Cos(math.NaN()), nan},
		{"Cos(π)", Cos(math.Pi), -1},
		{"Tanh(-0)", Tanh(minus), minus},
		{"Tanh(-Inf)", Tanh(-inf), -1},
		{"Tanh(NaN)", Tanh(math.NaN()), nan},
	} {
		if math.Float64bits(c.got) != math.Float64bits(c.want) {
			t.Errorf("%s = %v (%016x), want %v", c.name, c.got, math.Float64bits(c.got), c.want)
		}
	}
}

func TestLog2Ceil(t *testing.T) {
	for n, want := range map[int]int{1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 1023: 10, 1024: 10, 1025: 11} {
		if got := Log2Ceil(n); got != want {
			t.Errorf("Log2Ceil(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestAnglesBeyondTheReductionAreRefused(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Sin took an angle beyond MaxAngle")
		}
	}()
	Sin(MaxAngle + 1)
}
