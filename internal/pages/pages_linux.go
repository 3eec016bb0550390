package pages

import (
	"syscall"
	"unsafe"
)

// advise asks for large pages. A system that has none, or wants to give none, says
// so by an error, which changes nothing.
func advise(p unsafe.Pointer, n uintptr) {
	if b := whole(p, n); b != nil {
		_ = syscall.Madvise(b, syscall.MADV_HUGEPAGE)
	}
}
