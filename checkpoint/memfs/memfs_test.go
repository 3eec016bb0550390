package memfs_test

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"github.com/dlnode/dlnode/checkpoint/memfs"
)

func write(t *testing.T, p *memfs.Process, path, text string, sync bool) {
	t.Helper()
	f, err := p.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write([]byte(text))
	if sync {
		err = errors.Join(err, f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, d *memfs.Disk, path string) string {
	t.Helper()
	r, size, err := d.Process().Open(path)
	if err != nil {
		return err.(*fs.PathError).Err.Error()
	}
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != size {
		t.Fatal(size, err)
	}
	return string(b)
}

func TestPowerLossTakesWhatWasNotSynced(t *testing.T) {
	d := memfs.NewDisk()
	p := d.Process()
	write(t, p, "/both", "abc", true)
	write(t, p, "/name", "abc", false)
	if err := p.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	write(t, p, "/data", "abc", true)
	d.PowerLoss(nil)
	if got := d.Paths(); !slices.Equal(got, []string{"/both", "/name"}) {
		t.Errorf("left are %v", got)
	}
	if both, name := contents(t, d, "/both"), contents(t, d, "/name"); both != "abc" || name != "" {
		t.Errorf("%q and %q", both, name)
	}
	if _, err := p.ReadDir("/"); !errors.Is(err, memfs.ErrKilled) {
		t.Errorf("the process lives: %v", err)
	}
}

// The luck is asked for: was the entry kept, the file torn, where, zeros, where.
func TestPowerLossTearsFiles(t *testing.T) {
	for want, luck := range map[string][]int{
		"abcdef":        {1, 1, 6, 0},
		"abcd":          {1, 1, 4, 0},
		"ab\x00\x00":    {1, 1, 4, 1, 2},
		"":              {1, 0},
		"no such entry": {0},
	} {
		d := memfs.NewDisk()
		write(t, d.Process(), "/f", "abcdef", false)
		d.PowerLoss(func(n int) int {
			next := luck[0]
			luck = luck[1:]
			if next >= n {
				t.Errorf("asked for less than %d", n)
			}
			return next
		})
		if want == "no such entry" {
			want = fs.ErrNotExist.Error()
		}
		if got := contents(t, d, "/f"); got != want || len(luck) > 0 {
			t.Errorf("got %q, want %q; luck left: %v", got, want, luck)
		}
	}
}

func TestARenameIsWholeOrNot(t *testing.T) {
	for luck, want := range []string{"/old", "/new"} {
		d := memfs.NewDisk()
		p := d.Process()
		if err := errors.Join(p.Mkdir("/old"), p.SyncDir("/"), p.Rename("/old", "/new")); err != nil {
			t.Fatal(err)
		}
		d.PowerLoss(func(int) int { return luck })
		if got := d.Paths(); !slices.Equal(got, []string{want}) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestAFullDiskWritesWhatFits(t *testing.T) {
	d := memfs.NewDisk()
	d.SetCapacity(4)
	f, err := d.Process().Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.Write([]byte("abcdef"))
	if n != 4 || !errors.Is(err, syscall.ENOSPC) || contents(t, d, "/f") != "abcd" || d.Used() != 4 {
		t.Errorf("Write = %d, %v", n, err)
	}
}

func TestAFailingWriteIsHalfDone(t *testing.T) {
	d := memfs.NewDisk()
	p := d.Process()
	p.Before = func(op memfs.Op) error {
		if op.Name == "write" && op.N == 1 && op.Path == "/f" {
			return syscall.EIO
		}
		return nil
	}
	f, err := p.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write([]byte("abcdef")); n != 3 || !errors.Is(err, syscall.EIO) || contents(t, d, "/f") != "abc" {
		t.Errorf("Write = %d, %v", n, err)
	}
}

func TestAHoldEndsWithItsProcess(t *testing.T) {
	d := memfs.NewDisk()
	p, other := d.Process(), d.Process()
	path, hold, err := p.MkdirTemp("/", "t-")
	if err != nil {
		t.Fatal(err)
	}
	letGo, released, err := p.MkdirTemp("/", "t-")
	if err := errors.Join(err, released.Close()); err != nil {
		t.Fatal(err)
	}
	held, err1 := other.Abandoned(path)
	free, err2 := other.Abandoned(letGo)
	p.Kill()
	ended, err3 := other.Abandoned(path)
	if err := errors.Join(err1, err2, err3); err != nil || held || !free || !ended {
		t.Errorf("held %v, let go %v, ended %v, %v", held, free, ended, err)
	}
	if err := hold.Close(); !errors.Is(err, memfs.ErrKilled) {
		t.Errorf("a dead process lets go: %v", err)
	}
}

// The same errors as on a real disk.
func TestErrorsAreThoseOfTheSeam(t *testing.T) {
	p := memfs.NewDisk().Process()
	write(t, p, "/file", "x", true)
	if err := errors.Join(p.Mkdir("/empty"), p.Mkdir("/full"), p.Mkdir("/full/x")); err != nil {
		t.Fatal(err)
	}
	_, _, openDir := p.Open("/full")
	_, readFile := p.ReadDir("/file")
	for name, c := range map[string]struct{ got, want error }{
		"mkdir twice":          {p.Mkdir("/full"), fs.ErrExist},
		"mkdir without parent": {p.Mkdir("/a/b"), fs.ErrNotExist},
		"mkdir under a file":   {p.Mkdir("/file/b"), syscall.ENOTDIR},
		"rename onto full":     {p.Rename("/empty", "/full"), fs.ErrExist},
		"rename onto empty":    {p.Rename("/full", "/empty"), fs.ErrExist},
		"rename nothing":       {p.Rename("/none", "/z"), fs.ErrNotExist},
		"rename elsewhere":     {p.Rename("/empty", "/full/y"), syscall.EXDEV},
		"open a directory":     {openDir, syscall.EISDIR},
		"read a file as one":   {readFile, syscall.ENOTDIR},
		"remove nothing":       {p.RemoveAll("/none"), nil},
		"remove below nothing": {p.RemoveAll("/none/x"), nil},
		"remove a file":        {p.RemoveAll("/file"), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

func TestWhatIsNotClosedIsHeld(t *testing.T) {
	p := memfs.NewDisk().Process()
	refuse := false
	p.Before = func(memfs.Op) error {
		if refuse {
			return syscall.EIO
		}
		return nil
	}
	temp, hold, err := p.MkdirTemp("/", "t-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := p.Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	want := func(open ...string) {
		t.Helper()
		if got := p.Held(); !slices.Equal(got, open) {
			t.Errorf("open are %q, want %q", got, open)
		}
	}
	want("/f", temp)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want("/f", temp)
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	want(temp)
	refuse = true
	if _, err := p.Create("/g"); err == nil {
		t.Error("a disk that refuses made a file")
	}
	if err := hold.Close(); err == nil {
		t.Error("a disk that refuses let go")
	}
	want()
}
