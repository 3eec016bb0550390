//go:build !linux

package pages

import "unsafe"

// advise asks for nothing.
func advise(unsafe.Pointer, uintptr) {}
