//go:build !amd64

package kernel

// native returns the variants in assembly: none on this architecture.
func native() []variant { return nil }

func lacks() string { return "there is no assembly for this architecture" }
