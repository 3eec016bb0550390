package kernel

// What normalizations over the columns of a matrix x[m,n] consist of, in float64: a
// float32 mean would cost all digits that elements and mean have in common. Vectors
// named otherwise have an element for each column.

// NormSums adds up columns and their squares, both as differences from mean:
//
//	for i in 0..m, j in 0..n:
//		d := float64(x[i,j]) - mean[j]
//		sum[j] = sum[j] + d
//		square[j] = square[j] + d*d
//
// A NaN is the one NaN in the end.
func NormSums(sum, square []float64, x []float32, mean []float64) {
	n := len(mean)
	sameColumns("NormSums", n, sum, square)
	grid("NormSums", len(x), n, func(lo, hi, from, to, rows int) {
		active.normSums(sum[from:to], square[from:to], x[lo:hi], mean[from:to], rows)
	})
	quietAll(sum, square)
}

// NormApply moves and scales columns:
//
//	for i in 0..m, j in 0..n:
//		y[i,j] = float32((float64(x[i,j])-mean[j])*scale[j] + shift[j])
//
// y may be x.
func NormApply(y, x []float32, mean, scale, shift []float64) {
	n := len(mean)
	same("NormApply: y", len(y), len(x))
	sameColumns("NormApply", n, scale, shift)
	grid("NormApply", len(x), n, func(lo, hi, from, to, rows int) {
		active.normApply(y[lo:hi], x[lo:hi], mean[from:to], scale[from:to], shift[from:to], rows)
	})
}

// NormGradSums adds up the columns of a gradient, and their products with how far x
// lies from mean:
//
//	for i in 0..m, j in 0..n:
//		sum[j] = sum[j] + float64(dy[i,j])
//		along[j] = along[j] + float64(dy[i,j])*(float64(x[i,j])-mean[j])
//
// A NaN is the one NaN in the end.
func NormGradSums(sum, along []float64, dy, x []float32, mean []float64) {
	n := len(mean)
	same("NormGradSums: dy", len(dy), len(x))
	sameColumns("NormGradSums", n, sum, along)
	grid("NormGradSums", len(x), n, func(lo, hi, from, to, rows int) {
		active.normGradSums(sum[from:to], along[from:to], dy[lo:hi], x[lo:hi], mean[from:to], rows)
	})
	quietAll(sum, along)
}

// NormGrad takes a gradient back:
//
//	for i in 0..m, j in 0..n:
//		dx[i,j] = float32((p[j]*float64(dy[i,j]) + q[j]*(float64(x[i,j])-mean[j])) + r[j])
//
// dx may be dy.
func NormGrad(dx, dy, x []float32, mean, p, q, r []float64) {
	n := len(mean)
	same("NormGrad: dx", len(dx), len(x))
	same("NormGrad: dy", len(dy), len(x))
	sameColumns("NormGrad", n, p, q)
	sameColumns("NormGrad", n, r)
	grid("NormGrad", len(x), n, func(lo, hi, from, to, rows int) {
		active.normGrad(dx[lo:hi], dy[lo:hi], x[lo:hi], mean[from:to], p[from:to], q[from:to], r[from:to], rows)
	})
}

func sameColumns(what string, n int, vectors ...[]float64) {
	for _, v := range vectors {
		same(what, len(v), n)
	}
}

// grid cuts a matrix of so many elements, n a row, into pieces for one call each:
// some rows, or a part of one. They are elements [lo, hi) in columns [from, to).
func grid(what string, elements, n int, do func(lo, hi, from, to, rows int)) {
	checkRows(what, elements, n)
	if n == 0 {
		return
	}
	some := max(1, 8192/max(n, 8)) * n // a row takes a register at least
	for i := 0; i < elements; i += some {
		for from, to := piece(0, n); from < to; from, to = piece(to, n) {
			hi := i + to
			if some > n {
				hi = min(i+some, elements)
			}
			do(i+from, hi, from, to, (hi-i-from)/(to-from))
		}
	}
}

func quietAll(vectors ...[]float64) {
	for _, v := range vectors {
		for j, x := range v {
			v[j] = quiet64(x)
		}
	}
}

func sumRowsGeneric(dst, x []float32, rows, stride int) {
	for i := range rows {
		addGeneric(dst, x[i*stride:][:len(dst)])
	}
}

func normSumsGeneric(sum, square []float64, x []float32, mean []float64, rows int) {
	n := len(mean)
	for i := range rows {
		for j, v := range x[i*n:][:n] {
			d := float64(v) - mean[j]
			sum[j] += d
			square[j] += float64(d * d)
		}
	}
}

func normApplyGeneric(y, x []float32, mean, scale, shift []float64, rows int) {
	n := len(mean)
	for i := range rows {
		to := y[i*n:][:n]
		for j, v := range x[i*n:][:n] {
			to[j] = quiet32(float32(float64((float64(v)-mean[j])*scale[j]) + shift[j]))
		}
	}
}

func normGradSumsGeneric(sum, along []float64, dy, x []float32, mean []float64, rows int) {
	n := len(mean)
	for i := range rows {
		from := x[i*n:][:n]
		for j, g := range dy[i*n:][:n] {
			sum[j] += float64(g)
			along[j] += float64(float64(g) * (float64(from[j]) - mean[j]))
		}
	}
}

func normGradGeneric(dx, dy, x []float32, mean, p, q, r []float64, rows int) {
	n := len(mean)
	for i := range rows {
		to, from := dx[i*n:][:n], x[i*n:][:n]
		for j, g := range dy[i*n:][:n] {
			to[j] = quiet32(float32(float64(p[j]*float64(g)) + float64(q[j]*(float64(from[j])-mean[j])) + r[j]))
		}
	}
}
