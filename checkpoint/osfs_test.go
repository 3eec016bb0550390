package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dlnode/dlnode/checkpoint"
)

// helperEnv makes the test binary a process that holds a temporary directory.
const helperEnv = "CHECKPOINT_TEST_HOLD_IN"

func helperProcess() {
	parent, ok := os.LookupEnv(helperEnv)
	if !ok {
		return
	}
	path, _, err := checkpoint.OS().MkdirTemp(parent, ".tmp-000000000001-")
	fmt.Println(path, err)
	select {} // until somebody kills it
}

// openOS opens a store that is not there yet, on the real disk.
func openOS(t *testing.T) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(checkpoint.OS(), filepath.Join(t.TempDir(), "new", "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARealDiskKeepsCheckpoints(t *testing.T) {
	s := openOS(t)
	for transition := range uint64(3) {
		save(t, s, snapshot(transition+1))
	}
	if saved := save(t, s, snapshot(3)); !saved.Kept {
		t.Errorf("%+v", saved)
	}
	got, skipped, err := s.Latest(trajectory('T'))
	if err != nil || len(skipped) > 0 {
		t.Fatal(skipped, err)
	}
	requireSame(t, got, snapshot(3))
	if removed, err := s.Prune(trajectory('T'), 3, 1); err != nil || len(removed) != 2 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if names := readDir(t, s); len(names) != 1 || names[0] != "000000000003" {
		t.Errorf("left are %v", names)
	}
	if err := os.Truncate(filepath.Join(s.Dir(), "5400010203040506", "000000000003", "model.safetensors"), 11); err != nil {
		t.Fatal(err)
	}
	if saved := save(t, s, snapshot(3)); saved.Kept {
		t.Error("a damaged one was kept")
	}
}

func readDir(t *testing.T, s *checkpoint.Store) []string {
	t.Helper()
	names, err := checkpoint.OS().ReadDir(filepath.Join(s.Dir(), "5400010203040506"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestManyWritersShareARealDirectory(t *testing.T) {
	s := openOS(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			mine, err := checkpoint.Open(checkpoint.OS(), s.Dir())
			for transition := range uint64(5) {
				if err == nil {
					_, err = mine.Save(snapshot(transition + 1))
				}
				err = errors.Join(err, mine.Sweep())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	names := readDir(t, s)
	if len(names) != 5 {
		t.Errorf("there are %v", names)
	}
	for _, name := range names {
		if err := s.Verify(filepath.Join(s.Dir(), "5400010203040506", name)); err != nil {
			t.Error(err)
		}
	}
}

// kill -9 lets go of what a process held, and nothing else does.
func TestAKilledProcessAbandonsItsDirectory(t *testing.T) {
	s := openOS(t)
	save(t, s, snapshot(9))
	parent := filepath.Join(s.Dir(), "5400010203040506")
	path, kill := startHolder(t, parent)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("swept under its living holder: %v", err)
	}
	kill()
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if names := readDir(t, s); len(names) != 1 {
		t.Errorf("left are %v", names)
	}
}

// startHolder starts a process that holds a temporary directory.
func startHolder(t *testing.T, parent string) (path string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+parent)
	out, err := cmd.StdoutPipe()
	if err = errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it can only be dead already
		_ = cmd.Wait()         // "signal: killed"
	})
	t.Cleanup(kill)
	var said string
	if _, err := fmt.Fscan(out, &path, &said); err != nil || said != "<nil>" {
		t.Fatalf("the holder says %q %q, %v", path, said, err)
	}
	return path, kill
}

func TestALetGoDirectoryHasNoTraceOfTheHold(t *testing.T) {
	fsys := checkpoint.OS()
	path, hold, err := fsys.MkdirTemp(t.TempDir(), "x-")
	if err != nil {
		t.Fatal(err)
	}
	if abandoned, err := fsys.Abandoned(path); abandoned || err != nil {
		t.Errorf("held: abandoned is %v, %v", abandoned, err)
	}
	if err := errors.Join(hold.Close(), hold.Close()); err != nil {
		t.Error(err)
	}
	names, err := fsys.ReadDir(path)
	if abandoned, err2 := fsys.Abandoned(path); !abandoned || len(names) > 0 || errors.Join(err, err2) != nil {
		t.Errorf("let go: abandoned is %v, names %v, errors %v, %v", abandoned, names, err, err2)
	}
}

// The seam's promises about errors, on the real side.
func TestRealErrorsAreThoseOfTheSeam(t *testing.T) {
	fsys, dir := checkpoint.OS(), t.TempDir()
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	err := errors.Join(fsys.Mkdir(empty), fsys.Mkdir(full), fsys.Mkdir(filepath.Join(full, "x")))
	if err != nil {
		t.Fatal(err)
	}
	_, _, openDir := fsys.Open(full)
	_, _, openNone := fsys.Open(filepath.Join(dir, "none"))
	for name, c := range map[string]struct{ got, want error }{
		"mkdir twice":          {fsys.Mkdir(full), fs.ErrExist},
		"mkdir without parent": {fsys.Mkdir(filepath.Join(dir, "a", "b")), fs.ErrNotExist},
		"rename onto full":     {fsys.Rename(empty, full), fs.ErrExist},
		"rename onto empty":    {fsys.Rename(full, empty), fs.ErrExist},
		"rename nothing":       {fsys.Rename(filepath.Join(dir, "none"), filepath.Join(dir, "z")), fs.ErrNotExist},
		"open nothing":         {openNone, fs.ErrNotExist},
		"remove nothing":       {fsys.RemoveAll(filepath.Join(dir, "none")), nil},
	} {
		if !errors.Is(c.got, c.want) || c.got != nil && !strings.Contains(c.got.Error(), dir) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if openDir == nil {
		t.Error("a directory was opened as a file")
	}
}

func BenchmarkSave100MB(b *testing.B) {
	s, err := checkpoint.Open(checkpoint.OS(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	snap := large(100 << 20)
	b.SetBytes(100 << 20)
	for b.Loop() {
		snap.Transition++
		_, err := s.Save(snap)
		if err == nil {
			_, err = s.Prune(snap.Trajectory, snap.Transition, 2)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLatest100MB(b *testing.B) {
	s, err := checkpoint.Open(checkpoint.OS(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	snap := large(100 << 20)
	if _, err := s.Save(snap); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(100 << 20)
	for b.Loop() {
		if _, _, err := s.Latest(snap.Trajectory); err != nil {
			b.Fatal(err)
		}
	}
}
