package nn

import (
	"math"
	"strconv"
	"strings"

	"github.com/dlnode/dlnode/internal/fmath"
	"github.com/dlnode/dlnode/internal/rng"
)

// Init writes the parameters that a model starts with: all of params, which has
// [Model.NumParams] elements. Element i of tensor t is a function of (seed, t,
// i) and of the tensor's shape.
//
// Distributions and scales are those of Keras' VarianceScaling: glorot (Glorot
// and Bengio 2010) has variance 2/(in+out), he (He et al. 2015) 2/in, lecun
// (LeCun et al. 1998) 1/in; the normal ones are cut off at two standard
// deviations and widened so that the variance stays.
func (m *Model) Init(seed uint64, params []float32) {
	if len(params) != m.params {
		panic("nn: Init of a vector of another length")
	}
	for i, t := range m.tensors {
		s := rng.New(seed, rng.Init, uint64(i), 0, 0)
		start(m.starts[i], s, t.Shape, t.of(params))
	}
}

func start(initializer string, s rng.Stream, shape []int, dst []float32) {
	in, out := fans(shape)
	if v, ok := constantOf(initializer); ok {
		fill(dst, v)
		return
	}
	switch initializer {
	case "zeros":
		fill(dst, 0)
	case "ones":
		fill(dst, 1)
	case "glorot_uniform":
		uniform(s, 2/(in+out), dst)
	case "he_uniform":
		uniform(s, 2/in, dst)
	case "lecun_uniform":
		uniform(s, 1/in, dst)
	case "glorot_normal":
		truncatedNormal(s, 2/(in+out), dst)
	case "he_normal":
		truncatedNormal(s, 2/in, dst)
	case "lecun_normal":
		truncatedNormal(s, 1/in, dst)
	case "uniform":
		uniform(s, float64(0.05*0.05)/3, dst)
	case "orthogonal":
		orthogonal(s, shape[len(shape)-1], dst)
	case forgetBias:
		fill(dst, 0)
		fill(dst[len(dst)/4:len(dst)/2], 1)
	default:
		panic("nn: no initializer " + initializer)
	}
}

// forgetBias starts an LSTM's bias: 1 for the forget gate, 0 for the others
// (Jozefowicz et al. 2015).
const forgetBias = "unit_forget_bias"

// constantOf reads constant(VALUE).
func constantOf(initializer string) (float32, bool) {
	text, ok := strings.CutPrefix(initializer, "constant(")
	text, closed := strings.CutSuffix(text, ")")
	v, err := strconv.ParseFloat(text, 32)
	return float32(v), ok && closed && err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// fans are the numbers of inputs and outputs of one unit, as Keras counts them:
// a convolution's kernel [height, width, channels, filters] has height·width of
// each.
func fans(shape []int) (in, out float64) {
	last := len(shape) - 1
	if last == 0 {
		return float64(shape[0]), float64(shape[0])
	}
	field := 1
	for _, d := range shape[:last-1] {
		field *= d
	}
	return float64(field * shape[last-1]), float64(field * shape[last])
}

func fill(dst []float32, v float32) {
	for i := range dst {
		dst[i] = v
	}
}

// uniform draws from [-limit, limit), limit = sqrt(3·variance): element i from
// word i.
func uniform(s rng.Stream, variance float64, dst []float32) {
	limit := math.Sqrt(float64(3 * variance))
	for i := range dst {
		u := float64(rng.Unit32(s.Uint32(uint64(i))))
		dst[i] = float32(limit * (u + u - 1))
	}
}

// truncation is the standard deviation of a standard normal distribution that
// is cut off at ±2.
const truncation = 0.87962566103423978

// truncatedNormal draws from a normal distribution of the given variance cut
// off at two standard deviations of its uncut self.
func truncatedNormal(s rng.Stream, variance float64, dst []float32) {
	scale := math.Sqrt(variance) / truncation
	for i := range dst {
		dst[i] = float32(scale * standardNormal(s, uint64(i)))
	}
}

// standardNormal is draw i of a standard normal distribution cut off at ±2:
// the first that fits of the pairs of Box and Muller (1958) from blocks i, i +
// 2^40, i + 2·2^40, ... One of 22 draws does not fit.
func standardNormal(s rng.Stream, i uint64) float64 {
	for ; ; i += 1 << 40 {
		b := s.Block(i)
		u := float64(rng.Unit64(uint64(b[0]) | uint64(b[1])<<32))
		v := float64(rng.Unit64(uint64(b[2]) | uint64(b[3])<<32))
		r := math.Sqrt(float64(-2 * fmath.Log(1-u)))
		angle := float64(2 * math.Pi * v)
		for _, z := range [2]float64{float64(r * fmath.Cos(angle)), float64(r * fmath.Sin(angle))} {
			if math.Abs(z) <= 2 {
				return z
			}
		}
	}
}

// orthogonal fills a matrix of rows as long as its last axis with random
// orthonormal columns, or rows where there are fewer of them (Saxe et al. 2014):
// those that Gram and Schmidt's method, modified, makes of vectors of normal
// numbers, in float64. That is what the QR decomposition gives where R's
// diagonal is positive. O(fewer²·more) time.
func orthogonal(s rng.Stream, cols int, dst []float32) {
	rows := len(dst) / cols
	fewer, more := min(rows, cols), max(rows, cols)
	q := make([]float64, fewer*more)
	for i := range q {
		q[i] = normal(s, uint64(i))
	}
	for i := range fewer {
		v := q[i*more : (i+1)*more]
		for k := range i {
			u := q[k*more : (k+1)*more]
			along := dot(u, v)
			for j := range v {
				v[j] -= float64(along * u[j])
			}
		}
		length := math.Sqrt(dot(v, v))
		for j := range v {
			v[j] /= length
			at := i*cols + j
			if rows > cols {
				at = j*cols + i
			}
			dst[at] = float32(v[j])
		}
	}
}

// dot sums products in their order.
func dot(x, y []float64) (sum float64) {
	for i, v := range x {
		sum += float64(v * y[i])
	}
	return sum
}

// normal is draw i of a standard normal distribution: the first of the pair of
// Box and Muller from block i.
func normal(s rng.Stream, i uint64) float64 {
	b := s.Block(i)
	u := float64(rng.Unit64(uint64(b[0]) | uint64(b[1])<<32))
	v := float64(rng.Unit64(uint64(b[2]) | uint64(b[3])<<32))
	return float64(math.Sqrt(float64(-2*fmath.Log(1-u))) * fmath.Cos(float64(2*math.Pi*v)))
}
