package kernel

// LSTMForward is one step of an LSTM (Hochreiter and Schmidhuber 1997, with forget
// gates: Gers et al. 2000) for len(c)/units samples. z holds four gates of each,
// [n, 4, units], in Keras' order: input, forget, candidate, output; what is there
// comes from the products, and is replaced by the gates themselves. next receives
// the new cell state, squashed its tanh, h the output, [n, units] each. next may
// be c.
//
//	i, f, g, o := sigmoid(z[0]), sigmoid(z[1]), tanh(z[2]), sigmoid(z[3])
//	next = f*c + i*g
//	squashed = tanh(next)
//	h = o*squashed
//
// Every operation here is rounded to float32, none is fused. The two functions, within
// 2 ulp, are those of gate.go.
func LSTMForward(units int, z, c, next, squashed, h []float32) {
	checkLSTM("LSTMForward", units, z, c, next, squashed, h)
	for s := 0; s < len(c); s += units {
		for lo := 0; lo < units; lo += lstmPiece {
			hi := min(lo+lstmPiece, units)
			i, f, g, o := gates(z[4*s:], units, lo, hi)
			active.lstmForward(i, f, g, o, c[s+lo:s+hi], next[s+lo:s+hi], squashed[s+lo:s+hi], h[s+lo:s+hi])
		}
	}
}

// LSTMBackward is the way back through one step: gates, c and squashed are what
// LSTMForward had and left (c the old cell state), dh is the gradient at h, dc that
// at the new cell state through later steps. The gates are replaced by the
// gradients at z, dc by that at the old cell state.
//
//	do := dh*squashed
//	d  := dc + (dh*o)*(1 - squashed*squashed)
//	dz[0] = ((d*g)*i)*(1-i)
//	dz[1] = ((d*c)*f)*(1-f)
//	dz[2] = (d*i)*(1-g*g)
//	dz[3] = (do*o)*(1-o)
//	dc = d*f
//
// Every operation is rounded to float32, none is fused. What is written is +0 where
// it would be smaller in size than 2^-100 (see tiny).
func LSTMBackward(units int, gates4, c, squashed, dh, dc []float32) {
	checkLSTM("LSTMBackward", units, gates4, c, squashed, dh, dc)
	for s := 0; s < len(c); s += units {
		for lo := 0; lo < units; lo += lstmPiece {
			hi := min(lo+lstmPiece, units)
			i, f, g, o := gates(gates4[4*s:], units, lo, hi)
			active.lstmBackward(i, f, g, o, c[s+lo:s+hi], squashed[s+lo:s+hi], dh[s+lo:s+hi], dc[s+lo:s+hi])
		}
	}
}

// lstmPiece bounds a call in assembly: five transcendental functions an element.
const lstmPiece = 2048

// gates cuts units lo to hi of the four gates out of one sample's.
func gates(z []float32, units, lo, hi int) (i, f, g, o []float32) {
	return z[lo:hi], z[units+lo : units+hi], z[2*units+lo : 2*units+hi], z[3*units+lo : 3*units+hi]
}

func checkLSTM(what string, units int, z, c []float32, others ...[]float32) {
	checkRows(what, len(c), units)
	same(what, len(z), 4*len(c))
	for _, x := range others {
		same(what, len(x), len(c))
	}
}

func lstmForwardGeneric(i, f, g, o, c, next, squashed, h []float32) {
	for j, old := range c {
		in, forget, cand, out := sigmoidGate(i[j]), sigmoidGate(f[j]), tanhGate(g[j]), sigmoidGate(o[j])
		now := quiet32(float32(forget*old) + float32(in*cand))
		t := tanhGate(now)
		i[j], f[j], g[j], o[j] = in, forget, cand, out
		next[j], squashed[j], h[j] = now, t, quiet32(out*t)
	}
}

func lstmBackwardGeneric(i, f, g, o, c, squashed, dh, dc []float32) {
	for j, old := range c {
		t, in, forget, cand, out := squashed[j], i[j], f[j], g[j], o[j]
		do := dh[j] * t
		d := float32(float32(dh[j]*out)*(1-float32(t*t))) + dc[j]
		i[j] = flush32(float32(float32(d*cand)*in) * (1 - in))
		f[j] = flush32(float32(float32(d*old)*forget) * (1 - forget))
		g[j] = flush32(float32(d*in) * (1 - float32(cand*cand)))
		o[j] = flush32(float32(do*out) * (1 - out))
		dc[j] = flush32(d * forget)
	}
}
