package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	tempPrefix = ".tmp-"
	deadPrefix = ".dead-"

	// attempts bounds how often something is tried again because another
	// process came between. Once is rare already.
	attempts = 5
)

// ErrConflict is in the error of Save when the store holds another state of the
// same trajectory and transition, whole and undamaged. One of the two was
// computed wrong: by bad memory, a bad processor, or a bug.
var ErrConflict = errors.New("another state of the same trajectory and transition is there")

// Store is a directory of checkpoints. Several processes may use one directory
// at the same time; within a process there should be one Store for it, which is
// safe for concurrent use.
type Store struct {
	fs  FS
	dir string

	mu      sync.Mutex
	readers map[string]int  // checkpoints being read; Prune leaves them alone
	rooted  map[string]bool // directories whose entries are durable up to the root
}

// Open returns the store in dir. The directory need not exist: Save makes it.
// Nothing is written here, so a store can be looked at without right to write.
func Open(fsys FS, dir string) (*Store, error) {
	if _, err := fsys.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("checkpoint: open %s: %w", dir, err)
	}
	return &Store{fs: fsys, dir: filepath.Clean(dir), readers: map[string]int{}, rooted: map[string]bool{}}, nil
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// Saved tells what Save did.
type Saved struct {
	Path        string   // the checkpoint's directory
	Digest      [32]byte // of the state: Digest(snapshot)
	ModelDigest [32]byte // of model.safetensors: ModelDigest(snapshot)
	Bytes       int64    // of all files
	Kept        bool     // the same checkpoint was there already, verified now
}

// Save makes a checkpoint of a snapshot durable; when it returns without error,
// a loss of power does not lose it. The cost is one pass over the tensors for
// writing and hashing, and what the disk takes to sync. An existing checkpoint
// of the state is verified and kept, a damaged one replaced; ErrConflict if it
// holds another state.
//
// After an error nothing half-written is left. Other errors are those of the
// file system and say what was being done to which file.
func (s *Store) Save(snap *Snapshot) (Saved, error) {
	target := filepath.Join(s.trajectoryDir(snap.Trajectory), transitionName(snap.Transition))
	var m Manifest
	var kept bool
	var err error
	for range attempts {
		// Something that is gone under our hands was taken by a sweep of
		// another process in the one moment when it can't see that we live.
		if m, kept, err = s.save(snap, target); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return Saved{}, fmt.Errorf("checkpoint: save %s: %w", target, err)
	}
	return Saved{Path: target, Digest: m.Digest(), ModelDigest: m.ModelDigest(), Bytes: m.Bytes(), Kept: kept}, nil
}

func (s *Store) save(snap *Snapshot, target string) (m Manifest, kept bool, err error) {
	parent := filepath.Dir(target)
	if err := s.makeDirs(parent); err != nil {
		return m, false, err
	}
	if there, err := s.exists(target); err != nil {
		return m, false, err
	} else if there {
		m = Describe(snap)
		if kept, err = s.settle(target, m); err != nil {
			return m, false, err
		}
	}
	if !kept {
		if m, kept, err = s.write(snap, target); err != nil {
			return m, false, err
		}
	}
	return m, kept, s.fs.SyncDir(parent)
}

// makeDirs makes a trajectory's directory with what is missing above it, and
// makes all their entries durable, even of those that are there already: who made
// them may have died, or failed, before he had them synced. Once done, it is done
// for this store.
func (s *Store) makeDirs(path string) error {
	if err := s.mkdirAll(path); err != nil || s.isRooted(path) {
		return err
	}
	for p := path; p != filepath.Dir(p); p = filepath.Dir(p) {
		err := s.fs.SyncDir(filepath.Dir(p))
		if err != nil && !(len(p) < len(s.dir) && beyondUs(err)) {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rooted[path] = true
	return nil
}

// beyondUs tells that a directory above the store is one that this process may
// not sync, or that its system does not.
func beyondUs(err error) bool {
	return slices.ContainsFunc([]error{fs.ErrPermission, errors.ErrUnsupported, syscall.EINVAL, syscall.EROFS}, func(e error) bool { return errors.Is(err, e) })
}

func (s *Store) isRooted(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooted[path]
}

func (s *Store) mkdirAll(path string) error {
	err := s.fs.Mkdir(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		if err := s.mkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
		err = s.fs.Mkdir(path)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil { // what was durable has been removed by somebody
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.rooted)
	}
	return err
}

func (s *Store) exists(path string) (bool, error) {
	_, err := s.fs.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// settle looks at what is under the name of a checkpoint that is to be written.
// It is kept if it is the same; it makes way if it is damaged.
func (s *Store) settle(target string, want Manifest) (kept bool, err error) {
	got, err := s.verify(target)
	var damage *Damage
	switch {
	case errors.As(err, &damage):
		return false, s.retire(target)
	case err != nil:
		return false, err
	case got.Digest() != want.Digest():
		return false, fmt.Errorf("%w: its digest is %x, the new one's %x", ErrConflict, got.Digest(), want.Digest())
	}
	return true, nil
}

// write writes the files under a temporary name and publishes them.
func (s *Store) write(snap *Snapshot, target string) (m Manifest, kept bool, err error) {
	temp, hold, err := s.fs.MkdirTemp(filepath.Dir(target), tempPrefix+filepath.Base(target)+"-")
	if err != nil {
		return m, false, err
	}
	published := false
	defer func() {
		if !published {
			err = errors.Join(err, hold.Close(), s.fs.RemoveAll(temp))
		}
	}()
	if m, err = s.writeFiles(temp, snap); err != nil {
		return m, false, err
	}
	if err := hold.Close(); err != nil {
		return m, false, err
	}
	kept, err = s.publish(temp, target, m)
	published = err == nil && !kept
	return m, kept, err
}

// writeFiles fills a directory with the files of a checkpoint, all durable.
func (s *Store) writeFiles(dir string, snap *Snapshot) (Manifest, error) {
	var sums []FileSum
	for _, p := range parts(snap) {
		sum, err := s.writeFile(dir, p)
		if err != nil {
			return Manifest{}, err
		}
		sums = append(sums, sum)
	}
	m := newManifest(snap, sums)
	encoded := m.encode()
	if _, err := s.writeFile(dir, part{manifestFile, int64(len(encoded)), plain(encoded)}); err != nil {
		return Manifest{}, err
	}
	return m, s.fs.SyncDir(dir)
}

func (s *Store) writeFile(dir string, p part) (FileSum, error) {
	f, err := s.fs.Create(filepath.Join(dir, p.name))
	if err != nil {
		return FileSum{}, err
	}
	sum, err := writePart(f, p)
	if err == nil {
		err = f.Sync()
	}
	return sum, errors.Join(err, f.Close())
}

// publish gives a complete directory its final name, unless another process was
// faster with the same.
func (s *Store) publish(temp, target string, m Manifest) (kept bool, err error) {
	for range attempts {
		if err = s.fs.Rename(temp, target); !errors.Is(err, fs.ErrExist) {
			return false, err
		}
		if kept, err := s.settle(target, m); kept || err != nil {
			return kept, err
		}
	}
	return false, err
}

// Prune removes what Policy.Victims names: checkpoints of trajectory t that are
// older than the keep newest up to saved, the transition just written. What this
// process is reading stays until the next call. It returns the paths removed, in
// order of age, even with an error.
func (s *Store) Prune(t [32]byte, saved uint64, keep int) ([]string, error) {
	dir := s.trajectoryDir(t)
	transitions, err := s.transitions(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: prune %s: %w", dir, err)
	}
	var removed, dead []string
	for _, v := range (Policy{Keep: keep}).Victims(transitions, saved) {
		path := filepath.Join(dir, transitionName(v))
		grave, err := s.buryUnread(path)
		if err != nil {
			return removed, fmt.Errorf("checkpoint: prune %s: %w", path, errors.Join(err, s.removeDead(dir, dead)))
		}
		if grave != "" {
			removed, dead = append(removed, path), append(dead, grave)
		}
	}
	if err := s.removeDead(dir, dead); err != nil {
		return removed, fmt.Errorf("checkpoint: prune %s: %w", dir, err)
	}
	return removed, nil
}

// Sweep removes what processes left behind that died while they wrote or
// removed a checkpoint. What a living process is writing stays.
func (s *Store) Sweep() error {
	dirs, err := s.trajectoryDirs()
	if err != nil {
		return fmt.Errorf("checkpoint: sweep %s: %w", s.dir, err)
	}
	for _, dir := range dirs {
		if err := s.sweepDir(dir); err != nil {
			return fmt.Errorf("checkpoint: sweep %s: %w", dir, err)
		}
	}
	return nil
}

func (s *Store) sweepDir(dir string) error {
	names, err := s.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		switch {
		case strings.HasPrefix(name, deadPrefix):
			err = s.fs.RemoveAll(path)
		case strings.HasPrefix(name, tempPrefix):
			err = s.sweepTemp(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepTemp removes a temporary directory without a holder. It is renamed first:
// should its writer live after all, between two of its steps, then either he
// publishes it whole or he finds it gone and starts again.
func (s *Store) sweepTemp(path string) error {
	abandoned, err := s.fs.Abandoned(path)
	if !abandoned || err != nil {
		return err
	}
	return s.retire(path)
}

// buryUnread buries a checkpoint unless it is being read. The lock is held for
// the rename, so that no reader starts in between.
func (s *Store) buryUnread(path string) (dead string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers[path] > 0 {
		return "", nil
	}
	return s.bury(path)
}

// retire removes a directory in such a way that it is never seen half removed.
func (s *Store) retire(path string) error {
	dead, err := s.bury(path)
	if err != nil || dead == "" {
		return err
	}
	return s.removeDead(filepath.Dir(path), []string{dead})
}

// removeDead removes what was buried in dir. The burials are made durable first:
// otherwise a loss of power could undo the rename and not the removals, and a
// directory be back under its good name with files missing.
func (s *Store) removeDead(dir string, dead []string) error {
	if len(dead) == 0 {
		return nil
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return err
	}
	for _, path := range dead {
		if err := s.fs.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// bury renames a directory to a name that nobody reads. It returns "" if there
// was no such directory any more.
func (s *Store) bury(path string) (dead string, err error) {
	for i := range attempts {
		dead = filepath.Join(filepath.Dir(path), fmt.Sprintf("%s%s-%d", deadPrefix, filepath.Base(path), i))
		err = s.fs.Rename(path, dead)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return dead, err
		}
	}
	return "", err
}

// hold marks a checkpoint as being read.
func (s *Store) hold(path string) io.Closer {
	path = filepath.Clean(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[path]++
	return closer(sync.OnceFunc(func() { s.release(path) }))
}

func (s *Store) release(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers[path]--; s.readers[path] == 0 {
		delete(s.readers, path)
	}
}

// The names in a store. A name that is not exactly what the functions here give
// is somebody else's and left alone.

func (s *Store) trajectoryDir(t [32]byte) string {
	return filepath.Join(s.dir, Hash(t).String()[:trajectoryDigits])
}

const trajectoryDigits = 16

func isTrajectoryName(name string) bool {
	return len(name) == trajectoryDigits && strings.Trim(name, "0123456789abcdef") == ""
}

func transitionName(t uint64) string { return fmt.Sprintf("%012d", t) }

func parseTransition(name string) (uint64, bool) {
	t, err := strconv.ParseUint(name, 10, 64)
	return t, err == nil && transitionName(t) == name
}

// trajectoryDirs returns the paths of the trajectories, none if the store does
// not exist.
func (s *Store) trajectoryDirs() ([]string, error) {
	names, err := s.readDirIfAny(s.dir)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, name := range names {
		if isTrajectoryName(name) {
			dirs = append(dirs, filepath.Join(s.dir, name))
		}
	}
	return dirs, nil
}

// transitions returns the transitions of which a trajectory's directory holds
// checkpoints, oldest first; none if there is no such directory.
func (s *Store) transitions(dir string) ([]uint64, error) {
	names, err := s.readDirIfAny(dir)
	if err != nil {
		return nil, err
	}
	var ts []uint64
	for _, name := range names {
		if t, ok := parseTransition(name); ok {
			ts = append(ts, t)
		}
	}
	slices.Sort(ts)
	return ts, nil
}

func (s *Store) readDirIfAny(path string) ([]string, error) {
	names, err := s.fs.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}
