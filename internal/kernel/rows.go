package kernel

// What normalizations over the rows of a matrix consist of, for one row: in float64,
// as those over columns. A sum over a row has 16 lanes as [Sum]'s, anew for each 8192
// elements; the sums of these pieces are added in order.

// RowSums adds up a row and its squares, both as differences from at:
//
//	for i := range x {
//		d := float64(x[i]) - at
//		lane i%16 of sum, of square: + d, + d*d
//	}
func RowSums(x []float32, at float64) (sum, square float64) {
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		a, b := active.rowSums(x[lo:hi], at)
		sum, square = sum+a, square+b
	}
	return quiet64(sum), quiet64(square)
}

// RowApply normalizes a row, scales and moves it:
//
//	y[i] = float32(((float64(x[i])-mean)*inv)*scale[i] + shift[i])
//
// y may be x.
func RowApply(y, x []float32, scale, shift []float64, mean, inv float64) {
	same("RowApply: y", len(y), len(x))
	sameColumns("RowApply", len(x), scale, shift)
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		active.rowApply(y[lo:hi], x[lo:hi], scale[lo:hi], shift[lo:hi], mean, inv)
	}
}

// RowGradSums adds a row's gradient to what is summed over rows, and returns the sums
// over the row:
//
//	for i := range x {
//		d, g := (float64(x[i])-mean)*inv, float64(dy[i])
//		plain[i] = plain[i] + g
//		along[i] = along[i] + g*d
//		lane i%16 of sum, of dot: + g*scale[i], + (g*scale[i])*d
//	}
//
// A NaN in plain or along may be any, since more rows follow: who rounds them to
// float32 makes it the one NaN.
func RowGradSums(plain, along []float64, dy, x []float32, scale []float64, mean, inv float64) (sum, dot float64) {
	same("RowGradSums: dy", len(dy), len(x))
	sameColumns("RowGradSums", len(x), plain, along)
	sameColumns("RowGradSums", len(x), scale)
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		a, b := active.rowGradSums(plain[lo:hi], along[lo:hi], dy[lo:hi], x[lo:hi], scale[lo:hi], mean, inv)
		sum, dot = sum+a, dot+b
	}
	return quiet64(sum), quiet64(dot)
}

// RowGrad takes a row's gradient back:
//
//	dx[i] = float32(inv * ((float64(dy[i])*scale[i] - p) - ((float64(x[i])-mean)*inv)*q))
//
// dx may be dy.
func RowGrad(dx, dy, x []float32, scale []float64, mean, inv, p, q float64) {
	same("RowGrad: dx", len(dx), len(x))
	same("RowGrad: dy", len(dy), len(x))
	sameColumns("RowGrad", len(x), scale)
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		active.rowGrad(dx[lo:hi], dy[lo:hi], x[lo:hi], scale[lo:hi], mean, inv, p, q)
	}
}

// tree adds 16 lanes, upper half onto lower half.
func tree(l *[lanes]float64) float64 {
	for h := lanes / 2; h > 0; h /= 2 {
		for j := range h {
			l[j] += l[j+h]
		}
	}
	return l[0]
}

func rowSumsGeneric(x []float32, at float64) (sum, square float64) {
	var a, b [lanes]float64
	for i, v := range x {
		d := float64(v) - at
		a[i%lanes] += d
		b[i%lanes] += float64(d * d)
	}
	return tree(&a), tree(&b)
}

func rowApplyGeneric(y, x []float32, scale, shift []float64, mean, inv float64) {
	for i, v := range x {
		d := float64((float64(v) - mean) * inv)
		y[i] = quiet32(float32(float64(d*scale[i]) + shift[i]))
	}
}

func rowGradSumsGeneric(plain, along []float64, dy, x []float32, scale []float64, mean, inv float64) (sum, dot float64) {
	var a, b [lanes]float64
	for i, v := range x {
		d, g := float64((float64(v)-mean)*inv), float64(dy[i])
		plain[i] += g
		along[i] += float64(g * d)
		g = float64(g * scale[i])
		a[i%lanes] += g
		b[i%lanes] += float64(g * d)
	}
	return tree(&a), tree(&b)
}

func rowGradGeneric(dx, dy, x []float32, scale []float64, mean, inv, p, q float64) {
	for i, v := range x {
		d := float64((float64(v) - mean) * inv)
		g := (float64(float64(dy[i])*scale[i]) - p) - float64(d*q)
		dx[i] = quiet32(float32(float64(inv * g)))
	}
}
