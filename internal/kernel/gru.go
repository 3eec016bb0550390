package kernel

// GRUForward is one step of a gated recurrent unit (Cho et al. 2014) that resets
// after the product, for len(h)/units samples. a holds three parts of each, [n, 3,
// units]: of update and reset all that goes into them, of the candidate what comes
// from x; b, [n, units], is what comes from h for the candidate. They are replaced by
// the gates and the candidate; b stays. next receives the new h. next may be h.
//
//	z, r := sigmoid(a[0]), sigmoid(a[1])
//	g := tanh(a[2] + r*b)
//	next = z*h + (1-z)*g
//
// Every operation here is rounded to float32, none is fused. The two functions, within
// 2 ulp, are those of gate.go.
func GRUForward(units int, a, b, h, next []float32) {
	checkGRU("GRUForward", units, a, b, h, next)
	for s := 0; s < len(h); s += units {
		for lo := 0; lo < units; lo += lstmPiece {
			hi := min(lo+lstmPiece, units)
			z, r, g := thirds(a[3*s:], units, lo, hi)
			active.gruForward(z, r, g, b[s+lo:s+hi], h[s+lo:s+hi], next[s+lo:s+hi])
		}
	}
}

// GRUBackward is the way back through one step: a is what GRUForward has left, b and
// h are what it had (h the old one), dh is the gradient at the new h. a is replaced
// by the gradients at a, b by that at b, dh by what goes to the old h directly.
//
//	dg := (dh*(1-z))*(1-g*g)
//	da[0] = ((dh*(h-g))*z)*(1-z)
//	da[1] = ((dg*b)*r)*(1-r)
//	da[2] = dg
//	db = dg*r
//	dh = dh*z
//
// Every operation is rounded to float32, none is fused. What is written is +0 where
// it would be smaller in size than 2^-100 (see tiny).
func GRUBackward(units int, a, b, h, dh []float32) {
	checkGRU("GRUBackward", units, a, b, h, dh)
	for s := 0; s < len(h); s += units {
		for lo := 0; lo < units; lo += lstmPiece {
			hi := min(lo+lstmPiece, units)
			z, r, g := thirds(a[3*s:], units, lo, hi)
			active.gruBackward(z, r, g, b[s+lo:s+hi], h[s+lo:s+hi], dh[s+lo:s+hi])
		}
	}
}

// thirds cuts units lo to hi of update, reset and candidate out of one sample's.
func thirds(a []float32, units, lo, hi int) (z, r, g []float32) {
	return a[lo:hi], a[units+lo : units+hi], a[2*units+lo : 2*units+hi]
}

func checkGRU(what string, units int, a []float32, others ...[]float32) {
	checkRows(what, len(a), 3*units)
	for _, x := range others {
		same(what, len(x), len(a)/3)
	}
}

func gruForwardGeneric(z, r, g, b, h, next []float32) {
	for j, old := range h {
		keep, reset := sigmoidGate(z[j]), sigmoidGate(r[j])
		cand := tanhGate(g[j] + float32(reset*b[j]))
		z[j], r[j], g[j] = keep, reset, cand
		next[j] = quiet32(float32(keep*old) + float32((1-keep)*cand))
	}
}

func gruBackwardGeneric(z, r, g, b, h, dh []float32) {
	for j, d := range dh {
		keep, reset, cand := z[j], r[j], g[j]
		dg := float32(d*(1-keep)) * (1 - float32(cand*cand))
		z[j] = flush32(float32(float32(d*(h[j]-cand))*keep) * (1 - keep))
		r[j] = flush32(float32(float32(dg*b[j])*reset) * (1 - reset))
		g[j] = flush32(dg)
		b[j] = flush32(dg * reset)
		dh[j] = flush32(d * keep)
	}
}
