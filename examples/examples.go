// Package examples holds job files to start from, and carries the one that
// dlnode demo trains, so that the program needs no file beside it.
package examples

import _ "embed" // for MNIST

// MNIST is mnist-mlp.yaml: the network of the Keras tutorial on handwritten
// digits, in four microbatches a step.
//
//go:embed mnist-mlp.yaml
var MNIST []byte
