package checkpoint

import "io"

// FS is all that a Store needs of a file system. Errors are such that errors.Is
// finds fs.ErrExist and fs.ErrNotExist in them, and name the path.
//
// What is durable is said by each method; what is not, may or may not be there
// after a loss of power, in any combination.
type FS interface {
	// Mkdir makes one directory; its parent must exist. The new entry is
	// durable once the parent is synced.
	Mkdir(path string) error

	// MkdirTemp makes a directory of a new name, prefix and something unique,
	// in parent. Until the hold is closed or this process has ended, however it
	// ends, Abandoned is false for it, in every process that sees it. Closing
	// the hold leaves nothing behind in the directory; closing it twice is fine.
	MkdirTemp(parent, prefix string) (path string, hold io.Closer, err error)

	// Abandoned tells whether a directory made by MkdirTemp has no holder any
	// more. Where the system can't tell, it answers false.
	Abandoned(path string) (bool, error)

	// Create makes a file for writing; fs.ErrExist if there is one.
	Create(path string) (File, error)

	// Open opens a file for reading, and tells its size in bytes.
	Open(path string) (r io.ReadCloser, size int64, err error)

	// Rename gives a directory a new name within its parent, at once: others
	// see it under the old name or under the new one, whole. It fails with
	// fs.ErrExist where to is a directory. Durable once the parent is synced.
	Rename(from, to string) error

	// SyncDir makes the entries of a directory durable, not what they hold.
	SyncDir(path string) error

	// ReadDir returns the names in a directory, sorted.
	ReadDir(path string) ([]string, error)

	// RemoveAll removes a path and what is below it; nil if there is nothing.
	RemoveAll(path string) error
}

// File is a file that is being written.
type File interface {
	io.Writer

	// Sync returns when what was written is durable.
	Sync() error

	Close() error
}
