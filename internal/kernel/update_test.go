package kernel

import (
	"math"
	"testing"
)

func TestUpdatesAreTheirLoops(t *testing.T) {
	const lr, mu, eps = 1e-2, 0.9, 1e-7
	for _, f := range []struct {
		name string
		fast func(p, g, v []float32)
		slow func(p, g, v *float32)
	}{
		{"Momentum", func(p, g, v []float32) { Momentum(p, g, v, lr, mu, false) }, func(p, g, v *float32) {
			kept := float32(mu * *v)
			*v = kept + *g
			step := float32(lr * *v)
			*p -= step
		}},
		{"Nesterov", func(p, g, v []float32) { Momentum(p, g, v, lr, mu, true) }, func(p, g, v *float32) {
			kept := float32(mu * *v)
			*v = kept + *g
			ahead := float32(mu * *v)
			step := float32(lr * float32(*g+ahead))
			*p -= step
		}},
		{"RMSprop", func(p, g, v []float32) { RMSprop(p, g, v, lr, mu, eps) }, func(p, g, v *float32) {
			rho := float32(mu)
			square, kept := float32(*g**g), float32(rho**v)
			grown := float32((1 - rho) * square)
			*v = kept + grown
			root := float32(math.Sqrt(float64(*v)))
			step := float32(lr * (*g / (root + eps)))
			*p -= step
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			each(t, func(t *testing.T) {
				src := source(19)
				for _, n := range lengths() {
					var got, want [3][]float32
					var checks [3]func()
					for i := range got {
						x := src.nasty(n, n%2 == 0)
						want[i] = append([]float32(nil), x...)
						got[i], checks[i] = fenced(t, x)
					}
					f.fast(got[0], got[1], got[2])
					for i := range n {
						f.slow(&want[0][i], &want[1][i], &want[2][i])
						want[0][i], want[2][i] = quiet32(want[0][i]), quiet32(want[2][i])
					}
					for i, what := range []string{"p", "g", "v"} {
						sameBits32(t, what, got[i], want[i])
						checks[i]()
					}
				}
			})
		})
	}
}
