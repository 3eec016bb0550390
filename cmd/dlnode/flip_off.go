//go:build !flips

package main

import "github.com/dlnode/dlnode/train"

// flip is for tests of a program that was built for them: see flip_on.go.
func (m *Main) flip(*train.Config) error { return nil }
