package main

// cores is how many a node of the tables has. Each computes one microbatch a step, in the time that it
// took one core alone here.
const cores = 8

// Nets are those of the examples and two more. Seconds of a microbatch are from 'dlnode bench step' on one
// thread, those of mlp-wide and mnist-cnn from the table of bench/README.md; widths of packed elements are
// from docs/packing.md, of nets that are not in it those of the most alike (mlp-wide), and the widest
// (dense-100m). What dense-100m computes is 6 operations for each parameter and sample, at 100 GFLOP/s.
var Nets = []Net{
	{Name: "mnist-mlp", Params: 101_770, Tensors: 4, Columns: 2, Reduce: 2.9, Gather: 2.4, Local: cores * 32, Compute: 0.123e-3, Global: 128, Micro: 32},
	{Name: "mlp-wide", Params: 1_863_690, Tensors: 6, Columns: 2, Reduce: 2.9, Gather: 2.4, Local: cores * 32, Compute: 2.94e-3, Global: 128, Micro: 32},
	{Name: "mnist-cnn", Params: 1_199_882, Tensors: 8, Columns: 2, Reduce: 4.1, Gather: 3.4, Local: cores * 32, Compute: 16.8e-3, Global: 128, Micro: 32},
	{Name: "imdb-lstm", Params: 673_089, Tensors: 6, Columns: 2, Reduce: 1.2, Gather: 1.7, Local: cores * 32, Compute: 27.5e-3, Global: 128, Micro: 32},
	{Name: "cats-vs-dogs", Params: 3_453_121, Tensors: 12, Columns: 2, Reduce: 1.8, Gather: 1.9, Local: cores * 5, Compute: 69.2e-3, Global: 20, Micro: 5},
	{Name: "dense-100m", Params: 100_000_000, Tensors: 16, Columns: 2, Reduce: 4.1, Gather: 3.4, Local: cores * 32, Compute: 0.192, Global: 128, Micro: 32},
}

// Links are those of the tables. Alpha is one way, from program to program.
var Links = []Link{
	{"1 Gbit/s", 50e-6, wire * 1e9 / 8},
	{"10 Gbit/s", 30e-6, wire * 10e9 / 8},
	{"100 Gbit/s", 10e-6, wire * 100e9 / 8},
	{"WAN", 50e-3, wire * 100e6 / 8},
}

// Worlds are those of the tables.
var Worlds = []int{8, 32, 128, 512, 1024, 4096}

// Node is what was measured here: Frame and Byte by -check, Pack is 1/pack + 1/unpack for partial sums and
// results in docs/packing.md, Param what update and check took for each parameter with one thread.
var Node = Machine{Frame: 14e-6, Byte: 0.8e-9, Pack: 0.15e-9, Param: 1.5e-9, Overhead: 50e-6}
