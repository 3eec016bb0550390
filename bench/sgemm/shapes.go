package main

import "fmt"

type kind int

const (
	nn kind = iota // c[m,n] = a[m,k]·b[k,n]
	nt             // c[m,n] = a[m,k]·b[n,k]ᵀ
	tn             // c[m,n] = a[k,m]ᵀ·b[k,n]
)

func (k kind) String() string { return [...]string{"NN", "NT", "TN"}[k] }

// shape is one product of the table.
type shape struct {
	what    string
	kind    kind
	m, n, k int
}

func (s shape) flops() float64 { return 2 * float64(s.m) * float64(s.n) * float64(s.k) }

// shapes are squares and the products of a training step of each network.
func shapes() []shape {
	var all []shape
	for _, n := range []int{64, 96, 128, 256, 512, 1024, 2048} {
		for _, k := range []kind{nn, nt, tn} {
			all = append(all, shape{"square", k, n, n, n})
		}
	}
	for _, batch := range []int{1, 4, 8} {
		all = append(all, dense("few samples", batch, 784, 128, true)[0], dense("few samples", batch, 128, 512, true)[0])
	}
	for _, batch := range []int{32, 128, 512} {
		all = append(all, dense("mlp 784-128-10", batch, 784, 128, true)...)
		all = append(all, dense("mlp 784-128-10", batch, 128, 10, false)...)
	}
	all = append(all, dense("mlp 784-1024-1024-10", 128, 784, 1024, true)...)
	all = append(all, dense("mlp 784-1024-1024-10", 128, 1024, 1024, false)...)
	all = append(all, dense("mlp 784-1024-1024-10", 128, 1024, 10, false)...)
	all = append(all, conv("cnn conv32 3x3", 26*26, 9*1, 32, true)...)
	all = append(all, conv("cnn conv64 3x3", 24*24, 9*32, 64, false)...)
	for _, batch := range []int{32, 64} {
		all = append(all, dense("cnn dense128", batch, 12*12*64, 128, false)...)
	}
	for _, batch := range []int{32, 128} {
		all = append(all, dense("lstm 128 step", batch, 128, 4*128, false)...)
	}
	return append(all, dense("lstm 128 inputs of 50 steps", 32*50, 128, 4*128, false)...)
}

// dense are the three products of a layer y = x·W.
func dense(net string, batch, in, units int, first bool) []shape {
	net = fmt.Sprintf("%s, batch %d", net, batch)
	all := []shape{
		{net + ", y", nn, batch, units, in},
		{net + ", dW", tn, in, units, batch},
	}
	if !first {
		all = append(all, shape{net + ", dx", nt, batch, in, units})
	}
	return all
}

// conv are the products of one sample's convolution: rows are pixels of the
// output, columns of the unfolded input are the window's elements.
func conv(net string, pixels, window, filters int, first bool) []shape {
	all := []shape{
		{net + ", y", nn, pixels, filters, window},
		{net + ", dW", tn, window, filters, pixels},
	}
	if !first {
		all = append(all, shape{net + ", dx", nt, pixels, window, filters})
	}
	return all
}
