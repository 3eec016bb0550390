//go:build !unix || solaris || aix

package checkpoint

import (
	"errors"
	"os"
)

// errLocked says that another open file, here or elsewhere, has the lock.
var errLocked = errors.New("locked by another process")

// tryLock knows no locks on this system.
func tryLock(*os.File) error { return errors.ErrUnsupported }
