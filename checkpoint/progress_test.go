package checkpoint

import (
	"bytes"
	"io"
	"reflect"
	"testing"
)

// Every operation of a file system that is watched shows when it has ended, and long ones in between.
func TestWhatMovesOnADiskShows(t *testing.T) {
	fsys, moves := Watch(OS())
	dir := t.TempDir()
	at := moves.Load()
	moved := func(what string, least uint64, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(what, err)
		}
		if now := moves.Load(); now < at+least {
			t.Errorf("%s: %d signs of life, want %d", what, now-at, least)
		}
		at = moves.Load()
	}
	done := map[string]bool{}
	did := func(method string, least uint64, err error) {
		done[method] = true
		t.Helper()
		moved(method, least, err)
	}

	did("Mkdir", 1, fsys.Mkdir(dir+"/a"))
	temp, hold, err := fsys.MkdirTemp(dir, "t")
	did("MkdirTemp", 1, err)
	_, err = fsys.Abandoned(temp)
	did("Abandoned", 1, err)
	if err := hold.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(dir + "/a/f")
	did("Create", 1, err)
	text := bytes.Repeat([]byte("x"), 3*watchPiece+1)
	n, err := f.Write(text)
	moved("Write", 4, err)
	if n != len(text) {
		t.Errorf("%d of %d bytes written", n, len(text))
	}
	moved("Sync", 1, f.Sync())
	moved("Close", 1, f.Close())
	r, _, err := fsys.Open(dir + "/a/f")
	did("Open", 1, err)
	got, err := io.ReadAll(r)
	moved("Read", 4, err)
	if !bytes.Equal(got, text) || r.Close() != nil {
		t.Error("what is read is not what was written")
	}
	did("Rename", 1, fsys.Rename(dir+"/a", dir+"/b"))
	did("SyncDir", 1, fsys.SyncDir(dir))
	_, err = fsys.ReadDir(dir)
	did("ReadDir", 1, err)
	did("RemoveAll", 1, fsys.RemoveAll(dir+"/b"))

	all := reflect.TypeFor[FS]()
	for i := range all.NumMethod() {
		if name := all.Method(i).Name; !done[name] {
			t.Errorf("%s has no case here", name)
		}
	}
}
