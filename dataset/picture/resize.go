package picture

// Filters are what an image may be resized by. All but nearest take into account
// every pixel of the source where an image gets smaller.
func Filters() []string { return []string{"nearest", "box", "bilinear", "bicubic"} }

// filter is a function of a distance, in pixels of the coarser grid, that is 0
// beyond its support.
type filter struct {
	support float64
	weight  func(x float64) float64
}

// Products are rounded by themselves, so that no compiler fuses them into a sum.
var filters = map[string]filter{
	"box": {0.5, func(x float64) float64 {
		if x > -0.5 && x <= 0.5 {
			return 1
		}
		return 0
	}},
	"bilinear": {1, func(x float64) float64 { return max(0, 1-max(x, -x)) }},
	"bicubic": {2, func(x float64) float64 {
		const a = -0.5
		x = max(x, -x)
		switch {
		case x < 1:
			return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
		case x < 2:
			return float64((float64((float64((x-5)*x)+8)*x) - 4) * a)
		}
		return 0
	}},
}

// planar is an image of bytes, [h, w, ch].
type planar struct {
	w, h, ch int
	pix      []byte
}

// resize returns p with another size: first along rows, then along columns, with
// bytes between.
func resize(p planar, w, h int, name string) planar {
	if name == "nearest" {
		return nearest(p, w, h)
	}
	f := filters[name]
	if w != p.w {
		p = planar{w, p.h, p.ch, along(p.pix, p.h, p.w, w, p.ch, f)}
	}
	if h != p.h {
		p = planar{w, h, p.ch, along(p.pix, 1, p.h, h, w*p.ch, f)}
	}
	return p
}

// nearest takes the pixel whose centre is nearest, the right one of two.
func nearest(p planar, w, h int) planar {
	out := planar{w, h, p.ch, make([]byte, 0, w*h*p.ch)}
	for y := range h {
		row := p.pix[(2*y+1)*p.h/(2*h)*p.w*p.ch:]
		for x := range w {
			at := (2*x + 1) * p.w / (2 * w) * p.ch
			out.pix = append(out.pix, row[at:at+p.ch]...)
		}
	}
	return out
}

// precision is the number of fractional bits of a weight: the sum of weights times
// bytes fits into 32 bits with a sign, and a bit to spare.
const precision = 32 - 8 - 2

// tap is what one element of the result is made of.
type tap struct {
	first   int // of the source
	weights []int32
}

// taps returns the weights for n elements of m, as Pillow does.
func taps(m, n int, f filter) []tap {
	scale := float64(m) / float64(n)
	wide := max(scale, 1)
	reach, narrow := float64(f.support*wide), 1/wide
	all := make([]tap, n)
	w := make([]float64, 0, int(2*reach)+3)
	for i := range all {
		centre := float64((float64(i) + 0.5) * scale)
		lo, hi := max(0, int(centre-reach+0.5)), min(m, int(centre+reach+0.5))
		w, all[i].first = w[:0], lo
		var sum float64
		for j := lo; j < hi; j++ {
			v := f.weight(float64((float64(j) - centre + 0.5) * narrow))
			w = append(w, v)
			sum += v
		}
		for _, v := range w {
			if sum != 0 {
				v /= sum
			}
			all[i].weights = append(all[i].weights, fixed(v))
		}
	}
	return all
}

// fixed rounds a weight, halves away from 0.
func fixed(v float64) int32 {
	v = float64(v * (1 << precision)) // exact
	if v < 0 {
		return int32(v - 0.5)
	}
	return int32(v + 0.5)
}

// along resizes src [outer, m, inner] to [outer, n, inner].
func along(src []byte, outer, m, n, inner int, f filter) []byte {
	all := taps(m, n, f)
	out := make([]byte, outer*n*inner)
	sums := make([]int32, inner)
	for o := range outer {
		part := src[o*m*inner:]
		if inner == 3 {
			triples(out[o*n*inner:], part, all)
			continue
		}
		for i, t := range all {
			for k := range sums {
				sums[k] = 1 << (precision - 1)
			}
			for j, w := range t.weights {
				for k, b := range part[(t.first+j)*inner:][:inner] {
					sums[k] += w * int32(b)
				}
			}
			dst := out[(o*n+i)*inner:][:inner]
			for k, s := range sums {
				dst[k] = clip(s >> precision)
			}
		}
	}
	return out
}

// triples is a row of along for three colours: to go through them in a loop takes
// longer than to add them up.
func triples(out, src []byte, all []tap) {
	for i, t := range all {
		r, g, b := int32(1<<(precision-1)), int32(1<<(precision-1)), int32(1<<(precision-1))
		pix := src[3*t.first:][:3*len(t.weights)]
		for _, w := range t.weights {
			r, g, b = r+w*int32(pix[0]), g+w*int32(pix[1]), b+w*int32(pix[2])
			pix = pix[3:]
		}
		out[3*i], out[3*i+1], out[3*i+2] = clip(r>>precision), clip(g>>precision), clip(b>>precision)
	}
}

func clip(v int32) byte { return byte(max(0, min(255, v))) }
