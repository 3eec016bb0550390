//go:build !amd64

package main

func multiplyAdds() []multiplyAdd { return nil }
