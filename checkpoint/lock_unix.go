//go:build unix && !solaris && !aix

package checkpoint

import (
	"errors"
	"os"
	"syscall"
)

// errLocked says that another open file, here or elsewhere, has the lock.
var errLocked = errors.New("locked by another process")

// tryLock locks a file until it is closed. It never waits. errors.ErrUnsupported
// is in the error where the file system has no locks.
func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return errLocked
	case errors.Is(err, syscall.ENOLCK):
		return errors.ErrUnsupported
	}
	return err
}
