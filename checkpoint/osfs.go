package checkpoint

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// OS returns the file system of the machine.
//
// The hold of MkdirTemp is a lock (flock) on a file within the directory: the
// kernel lets go of it when the process ends, kill -9 included, and tells other
// processes, over NFS those of other machines too. Where there are no such locks
// nothing is ever called abandoned.
func OS() FS { return osFS{} }

type osFS struct{}

// holdName is the locked file in a temporary directory.
const holdName = ".writer"

func (osFS) Mkdir(path string) error { return os.Mkdir(path, 0o777) }

func (osFS) MkdirTemp(parent, prefix string) (string, io.Closer, error) {
	var unique [8]byte
	rand.Read(unique[:]) // never fails: it ends the program instead
	path := filepath.Join(parent, prefix+hex.EncodeToString(unique[:]))
	if err := os.Mkdir(path, 0o777); err != nil {
		return "", nil, err
	}
	hold, err := lockNew(filepath.Join(path, holdName))
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(path))
	}
	return path, hold, nil
}

// fileLock is a lock on a file that goes with the file.
type fileLock struct {
	file *os.File
	once sync.Once
}

// lockNew makes a file and locks it. Before it is locked, somebody who sweeps
// may take it for abandoned and lock it himself: that is reported as
// fs.ErrNotExist, since the directory is about to go.
func lockNew(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		if errors.Is(err, errLocked) {
			err = fs.ErrNotExist
		}
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: path, Err: err}, f.Close())
	}
	return &fileLock{file: f}, nil
}

// Close gives up the lock and removes the file; the second time it does nothing.
func (l *fileLock) Close() (err error) {
	l.once.Do(func() { err = l.remove() })
	return err
}

// remove closes the file first, so that a network file system does not keep it
// under another name.
func (l *fileLock) remove() error {
	err := l.file.Close()
	if gone := os.Remove(l.file.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

func (osFS) Abandoned(path string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(path, holdName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	err = tryLock(f)
	free := err == nil
	if errors.Is(err, errLocked) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return free, errors.Join(err, f.Close())
}

func (osFS) Create(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

func (osFS) Open(path string) (io.ReadCloser, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("not a regular file but %s", info.Mode())}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Rename relies on os.Rename, which refuses to replace a directory even where
// the system would replace an empty one.
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir takes "can't be synced" for an answer: some file systems have nothing
// to sync in a directory and say so.
func (osFS) SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

func (osFS) ReadDir(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (osFS) RemoveAll(path string) error { return os.RemoveAll(path) }
