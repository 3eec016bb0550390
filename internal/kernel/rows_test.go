package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// rowRound is one round of the functions over a row: sums, and what they write.
func rowRound(x, dy []float32, of [4][]float64) (sums [4]float64, y, dx []float32) {
	const mean, inv = 0.3, 1.7
	y, dx = make([]float32, len(x)), make([]float32, len(x))
	sums[0], sums[1] = RowSums(x, mean)
	RowApply(y, x, of[0], of[1], mean, inv)
	sums[2], sums[3] = RowGradSums(of[2], of[3], dy, x, of[0], mean, inv)
	RowGrad(dx, dy, x, of[0], mean, inv, sums[2]/10, -0.6)
	return sums, y, dx
}

// slowRound is rowRound by the loops of the doc comments.
func slowRound(x, dy []float32, of [4][]float64) (sums [4]float64, y, dx []float32) {
	const mean, inv = 0.3, 1.7
	for lo := 0; lo < len(x); lo += 8192 {
		var l [4][16]float64
		for i, v := range x[lo:min(lo+8192, len(x))] {
			j := lo + i
			d := float64(v) - mean
			l[0][i%16] += d
			l[1][i%16] += float64(d * d)
			d = float64(d * inv)
			y = append(y, quiet32(float32(float64(d*of[0][j])+of[1][j])))
			g := float64(dy[j])
			of[2][j] += g
			of[3][j] += float64(g * d)
			g = float64(g * of[0][j])
			l[2][i%16] += g
			l[3][i%16] += float64(g * d)
		}
		for k := range l {
			for h := 8; h > 0; h /= 2 {
				for j := range h {
					l[k][j] += l[k][j+h]
				}
			}
			sums[k] += l[k][0]
		}
	}
	for k := range sums {
		sums[k] = quiet64(sums[k])
	}
	p, q := sums[2]/10, -0.6
	for j, v := range x {
		d := float64((float64(v) - mean) * inv)
		g := (float64(float64(dy[j])*of[0][j]) - p) - float64(d*q)
		dx = append(dx, quiet32(float32(float64(inv*g))))
	}
	return sums, y, dx
}

func someRows(src *source, n int) (of [4][]float64) {
	for k := range of {
		for _, v := range src.normal(n) {
			of[k] = append(of[k], float64(v)*1.0000001)
		}
	}
	return of
}

func TestRowsMatchTheirLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(24)
		for n := range 71 {
			for _, kind := range []func(n int) []float32{src.normal, src.harsh} {
				checkRound(t, kind(n), kind(n), someRows(&src, n))
			}
		}
		checkRound(t, src.normal(20001), src.normal(20001), someRows(&src, 20001))
	})
}

func checkRound(t *testing.T, x, dy []float32, of [4][]float64) {
	t.Helper()
	slow := of
	for k := 2; k < 4; k++ {
		slow[k] = append([]float64(nil), of[k]...)
	}
	wantSums, wantY, wantDx := slowRound(x, dy, slow)
	sums, y, dx := rowRound(x, dy, of)
	sameBits64(t, "sums", sums[:], wantSums[:])
	sameBits32(t, "y", y, wantY)
	sameBits32(t, "dx", dx, wantDx)
	quietAll(of[2], of[3], slow[2], slow[3])
	sameBits64(t, "plain", of[2], slow[2])
	sameBits64(t, "along", of[3], slow[3])
}

// goldenRows is the SHA-256 of what the functions make of fixed rows: see golden.
const goldenRows = "a84109430cec786a339258258b64f6bfd23a3bc0a57da2b297000bdc51da3709"

func TestRowsAreTheRecordedOnes(t *testing.T) {
	each(t, func(t *testing.T) {
		src, h := source(2030), sha256.New()
		for _, n := range []int{1, 16, 77, 9000} {
			of := someRows(&src, n)
			sums, y, dx := rowRound(src.harsh(n), src.normal(n), of)
			put64(h, sums[:])
			quietAll(of[2], of[3])
			put64(h, append(of[2], of[3]...))
			put32(h, append(y, dx...))
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != goldenRows {
			t.Errorf("the SHA-256 is %s, recorded is %s", got, goldenRows)
		}
	})
}
