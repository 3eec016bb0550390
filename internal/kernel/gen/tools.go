//go:build tools

package main

// The generator reads this package's declarations but must not need its assembly.
import _ "github.com/dlnode/dlnode/internal/kernel"
