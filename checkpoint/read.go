package checkpoint

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
)

// ErrNone is in the error of Latest when there is no checkpoint to go on from.
var ErrNone = errors.New("no usable checkpoint")

// Damage tells why a checkpoint is not believed.
type Damage struct {
	Path   string // the checkpoint's directory
	File   string // the file in it
	Reason string // what is wrong: missing, truncated, digest mismatch, …
	Err    error  // the file system's error behind it, if there was one
}

// Error names the file and what is wrong with it.
func (d *Damage) Error() string {
	return filepath.Join(d.Path, d.File) + ": " + d.Reason
}

// Unwrap returns the file system's error.
func (d *Damage) Unwrap() error { return d.Err }

// Skipped is a checkpoint that was passed over.
type Skipped struct {
	Path   string // its directory
	Reason string // the file and what is wrong with it
}

// Latest returns the newest state of trajectory t that can be believed, and
// whatever newer ones were passed over, newest first, for somebody to tell. The
// error is ErrNone, with its circumstances, if there is no such state.
func (s *Store) Latest(t [32]byte) (snap *Snapshot, skipped []Skipped, err error) {
	dir := s.trajectoryDir(t)
	for range attempts {
		if snap, skipped, err = s.latest(dir, t); !errors.Is(err, errPruned) {
			break
		}
	}
	if err != nil {
		return nil, skipped, fmt.Errorf("checkpoint: look for the latest of trajectory %s in %s: %w", filepath.Base(dir), s.dir, err)
	}
	return snap, skipped, nil
}

// errPruned says that another process removed a checkpoint while it was being
// looked at. Then there is a newer one, which was not there before.
var errPruned = errors.New("pruned by another process")

func (s *Store) latest(dir string, t [32]byte) (*Snapshot, []Skipped, error) {
	transitions, err := s.transitions(dir)
	if err != nil {
		return nil, nil, err
	}
	var skipped []Skipped
	for _, transition := range slices.Backward(transitions) {
		path := filepath.Join(dir, transitionName(transition))
		snap, err := s.loadOf(path, t)
		if err == nil {
			return snap, skipped, nil
		}
		if there, lookErr := s.exists(path); !there {
			return nil, skipped, errors.Join(errPruned, lookErr)
		}
		skipped = append(skipped, Skipped{Path: path, Reason: reason(err)})
	}
	return nil, skipped, fmt.Errorf("%w, %d damaged", ErrNone, len(skipped))
}

// loadOf loads a checkpoint if it is of trajectory t and in its place.
func (s *Store) loadOf(path string, t [32]byte) (*Snapshot, error) {
	return s.load(path, func(m Manifest) error {
		if m.Trajectory != t {
			return &Damage{Path: path, File: manifestFile, Reason: fmt.Sprintf("is of trajectory %s, not %s", m.Trajectory, Hash(t))}
		}
		return misplaced(m, path)
	})
}

// reason is the error without the checkpoint's path.
func reason(err error) string {
	var d *Damage
	if errors.As(err, &d) {
		return d.File + ": " + d.Reason
	}
	return err.Error()
}

// misplaced checks that a checkpoint in the store is the one its path says.
func misplaced(m Manifest, path string) error {
	dir, name := filepath.Base(filepath.Dir(path)), filepath.Base(path)
	switch {
	case m.Trajectory.String()[:trajectoryDigits] != dir:
		return &Damage{Path: path, File: manifestFile, Reason: fmt.Sprintf("is of trajectory %s, not %s…", m.Trajectory, dir)}
	case transitionName(m.Transition) != name:
		return &Damage{Path: path, File: manifestFile, Reason: fmt.Sprintf("is of transition %d, not %s", m.Transition, name)}
	}
	return nil
}

// Load reads the checkpoint in a directory, wherever that is, and verifies every
// byte. The error is a *Damage if something is wrong with it.
func (s *Store) Load(path string) (*Snapshot, error) {
	snap, err := s.load(path, func(Manifest) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("checkpoint: load: %w", err)
	}
	return snap, nil
}

func (s *Store) load(path string, check func(Manifest) error) (*Snapshot, error) {
	defer s.hold(path).Close()
	m, err := s.readManifest(path)
	if err != nil {
		return nil, err
	}
	if err := check(m); err != nil {
		return nil, err
	}
	snap := m.blank()
	for _, f := range m.Files {
		read := func(r io.Reader) error { return readPart(snap, f.Name, r, f.Size) }
		if err := s.readFile(path, f, read); err != nil {
			return nil, err
		}
	}
	return snap, nil
}

// Verify reads every byte of the checkpoint in a directory and compares sizes and
// digests, without keeping anything. The error is a *Damage if they differ.
func (s *Store) Verify(path string) error {
	if _, err := s.verify(path); err != nil {
		return fmt.Errorf("checkpoint: verify: %w", err)
	}
	return nil
}

func (s *Store) verify(path string) (Manifest, error) {
	defer s.hold(path).Close()
	m, err := s.readManifest(path)
	if err != nil {
		return m, err
	}
	for _, f := range m.Files {
		if err := s.readFile(path, f, func(io.Reader) error { return nil }); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (s *Store) readManifest(path string) (Manifest, error) {
	b, err := s.readSmall(path, manifestFile, maxManifest)
	if err != nil {
		return Manifest{}, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return Manifest{}, &Damage{Path: path, File: manifestFile, Reason: err.Error()}
	}
	return m, nil
}

// readSmall reads a whole file of at most limit bytes.
func (s *Store) readSmall(path, name string, limit int64) ([]byte, error) {
	r, size, err := s.fs.Open(filepath.Join(path, name))
	if err != nil {
		return nil, unreadable(path, name, err)
	}
	defer r.Close()
	if size > limit {
		return nil, &Damage{Path: path, File: name, Reason: fmt.Sprintf("malformed: %d bytes, where %d are the limit", size, limit)}
	}
	b, err := readAll(r, size)
	if err != nil {
		return nil, unreadable(path, name, err)
	}
	return b, nil
}

// readFile hands the contents of a file to use and hashes them on their way. What
// use leaves is read too, because a digest mismatch explains a malformed file,
// and not the other way round.
func (s *Store) readFile(path string, f FileSum, use func(io.Reader) error) error {
	r, size, err := s.fs.Open(filepath.Join(path, f.Name))
	if err != nil {
		return unreadable(path, f.Name, err)
	}
	defer r.Close()
	if size != f.Size {
		return &Damage{Path: path, File: f.Name, Reason: wrongSize(size, f.Size)}
	}
	h := sha256.New()
	tee := io.TeeReader(r, h)
	used := use(tee)
	if _, err := io.Copy(onlyWriter{io.Discard}, tee); err != nil {
		return unreadable(path, f.Name, err)
	}
	if got := Hash(h.Sum(nil)); got != f.SHA256 {
		return &Damage{Path: path, File: f.Name, Reason: fmt.Sprintf("digest mismatch: sha256 is %s, the manifest says %s", got, f.SHA256)}
	}
	if used != nil {
		return &Damage{Path: path, File: f.Name, Reason: "malformed: " + used.Error(), Err: used}
	}
	return nil
}

func unreadable(path, name string, err error) error {
	d := &Damage{Path: path, File: name, Reason: "unreadable: " + err.Error(), Err: err}
	if errors.Is(err, fs.ErrNotExist) {
		d.Reason = "missing"
	}
	return d
}

func wrongSize(got, want int64) string {
	if got < want {
		return fmt.Sprintf("truncated: %d of %d bytes", got, want)
	}
	return fmt.Sprintf("too long: %d bytes, where the manifest says %d", got, want)
}

// onlyWriter hides ReadFrom, with which io.Discard would read in small pieces.
type onlyWriter struct{ io.Writer }

// closer is a function that closes.
type closer func()

// Close calls the function.
func (c closer) Close() error { c(); return nil }

// Entry is one checkpoint in a store as a listing shows it. Its manifest has been
// read and checked, its other files have not.
type Entry struct {
	Path       string
	Transition uint64   // by the directory's name
	Manifest   Manifest // zero if Err is set
	Err        error    // what is wrong with the manifest: a *Damage
}

// List returns all checkpoints in the store, by trajectory and transition. Of
// those that a process removes meanwhile it may tell that a file is missing.
func (s *Store) List() ([]Entry, error) {
	dirs, err := s.trajectoryDirs()
	if err != nil {
		return nil, fmt.Errorf("checkpoint: list %s: %w", s.dir, err)
	}
	var all []Entry
	for _, dir := range dirs {
		entries, err := s.listDir(dir)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: list %s: %w", dir, err)
		}
		all = append(all, entries...)
	}
	return all, nil
}

func (s *Store) listDir(dir string) ([]Entry, error) {
	transitions, err := s.transitions(dir)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(transitions))
	for _, t := range transitions {
		entries = append(entries, s.entry(filepath.Join(dir, transitionName(t)), t))
	}
	return entries, nil
}

func (s *Store) entry(path string, transition uint64) Entry {
	defer s.hold(path).Close()
	e := Entry{Path: path, Transition: transition}
	m, err := s.readManifest(path)
	if err == nil {
		err = misplaced(m, path)
	}
	if e.Err = err; err == nil {
		e.Manifest = m
	}
	return e
}

// Trajectory is one trajectory in a store, with what is needed to tell how its
// job differs from another.
type Trajectory struct {
	ID     [32]byte
	Newest Entry  // the newest one whose manifest and job are good
	Job    []byte // canonical JSON of the job's mathematical part
}

// Trajectories returns the trajectories in the store that have a checkpoint with
// a readable job. It does not read tensors.
func (s *Store) Trajectories() ([]Trajectory, error) {
	dirs, err := s.trajectoryDirs()
	if err != nil {
		return nil, fmt.Errorf("checkpoint: list the trajectories in %s: %w", s.dir, err)
	}
	var all []Trajectory
	for _, dir := range dirs {
		entries, err := s.listDir(dir)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: list the trajectory in %s: %w", dir, err)
		}
		if t, ok := s.newestJob(entries); ok {
			all = append(all, t)
		}
	}
	return all, nil
}

func (s *Store) newestJob(entries []Entry) (Trajectory, bool) {
	for _, e := range slices.Backward(entries) {
		if e.Err != nil {
			continue
		}
		if job, err := s.readJob(e); err == nil {
			return Trajectory{ID: e.Manifest.Trajectory, Newest: e, Job: job}, true
		}
	}
	return Trajectory{}, false
}

func (s *Store) readJob(e Entry) (job []byte, err error) {
	defer s.hold(e.Path).Close()
	f := e.Manifest.Files[0]
	err = s.readFile(e.Path, f, func(r io.Reader) error {
		job, err = readAll(r, f.Size)
		return err
	})
	return job, err
}
