package pack

import (
	"os"

	"golang.org/x/sys/unix"
)

// atRandom tells the system that a file is read here and there, so that it reads no
// more than it is asked for. A file system that can't take the hint does without.
func atRandom(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM) }

// willNeed has the system begin to read n bytes.
func willNeed(f *os.File, off, n int64) {
	_ = unix.Fadvise(int(f.Fd()), off, n, unix.FADV_WILLNEED) // what can't be read says so when it is
}
