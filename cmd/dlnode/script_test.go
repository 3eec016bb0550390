package main

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dlnode/dlnode/checkpoint"
)

// update rewrites what the scripts in testdata/script compare with. Review the
// diff: it is what users will see.
var update = flag.Bool("update", false, "rewrite the expected output in testdata/script")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dlnode": main})
}

// TestScripts plays users' sessions with the command. Nothing in them reaches
// beyond loopback: there is no go command to ask for modules, and no cache.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               isolate,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"idx":      writeIDX,
			"png":      writePNG,
			"flip":     flip,
			"truncate": truncate,
			"replace":  replace,
			"restamp":  restamp,
			"saved":    saved,
			"listen":   listen,
		},
	})
}

// isolate leaves nothing but the command itself on the PATH. Under the race
// detector a process sleeps for a second before it ends, unless told otherwise.
func isolate(env *testscript.Env) error {
	bin, _, _ := strings.Cut(env.Getenv("PATH"), string(filepath.ListSeparator))
	env.Setenv("PATH", bin)
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Setenv("DLNODE_DATA", filepath.Join(env.WorkDir, "cache"))
	return nil
}

// exits CODE COMMAND... runs a command, which must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		code = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if want := number(ts, args[0]); code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// idx FILE SHAPE MODULUS writes an IDX file of a shape such as 20x4x4, in which
// byte i is i*i mod MODULUS. It is compressed if FILE ends in .gz.
func writeIDX(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: idx FILE SHAPE MODULUS")
	}
	dims := strings.Split(args[1], "x")
	b, n := []byte{0, 0, 8, byte(len(dims))}, 1
	for _, d := range dims {
		n *= number(ts, d)
		b = binary.BigEndian.AppendUint32(b, uint32(number(ts, d)))
	}
	for i := range n {
		b = append(b, byte(i*i%number(ts, args[2])))
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	if !strings.HasSuffix(args[0], ".gz") {
		_, err = f.Write(b)
		ts.Check(err)
		return
	}
	w := gzip.NewWriter(f)
	_, err = w.Write(b)
	ts.Check(errors.Join(err, w.Close()))
}

// png FILE SIZE SEED writes an image of a size such as 20x30, which the seed makes.
func writePNG(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: png FILE SIZE SEED")
	}
	w, h, _ := strings.Cut(args[1], "x")
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, stripes(number(ts, w), number(ts, h), number(ts, args[2])), 0o644))
}

// flip FILE OFFSET flips the lowest bit of a byte; a negative offset counts from
// the end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	edit(ts, neg, args, "flip FILE OFFSET", func(b []byte, at int) []byte {
		b[at] ^= 1
		return b
	})
}

// truncate FILE LENGTH cuts a file off; a negative length counts from the end.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	edit(ts, neg, args, "truncate FILE LENGTH", func(b []byte, at int) []byte { return b[:at] })
}

func edit(ts *testscript.TestScript, neg bool, args []string, use string, change func([]byte, int) []byte) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: %s", use)
	}
	b, at := []byte(ts.ReadFile(args[0])), number(ts, args[1])
	if at < 0 {
		at += len(b)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), change(b, at), 0o644))
}

// replace FILE OLD NEW TO writes a copy of a file, with each OLD in it replaced.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: replace FILE OLD NEW TO")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	text = strings.ReplaceAll(text, args[1], args[2])
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(text), 0o644))
}

// saved RUN sets T, N and M to the trajectory's directory, the name and SHA-256 of
// the model of the newest checkpoint in a run directory.
func saved(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: saved RUN")
	}
	found, err := findCheckpoints(ts.MkAbs(args[0]))
	ts.Check(err)
	newest := found.entries[len(found.entries)-1]
	ts.Setenv("T", filepath.Base(filepath.Dir(newest.Path)))
	ts.Setenv("N", filepath.Base(newest.Path))
	ts.Setenv("M", fmt.Sprintf("%x", newest.Manifest.ModelDigest()))
}

// restamp CHECKPOINT TRANSITION STEP [STORE] saves a checkpoint's state once more,
// beside it or in another store, under another transition and step: as if
// training had stood there.
func restamp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: restamp CHECKPOINT TRANSITION STEP [STORE]")
	}
	path := ts.MkAbs(args[0])
	dir := filepath.Dir(filepath.Dir(path))
	if len(args) == 4 {
		dir = ts.MkAbs(args[3])
	}
	store, err := checkpoint.Open(checkpoint.OS(), dir)
	ts.Check(err)
	snap, err := store.Load(path)
	ts.Check(err)
	snap.Transition, snap.Step = uint64(number(ts, args[1])), uint64(number(ts, args[2]))
	_, err = store.Save(snap)
	ts.Check(err)
}

// listen takes a port of this machine until the script ends; ADDR is where,
// and PORT is its end.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: listen")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() }) // nobody has connected
	ts.Setenv("ADDR", l.Addr().String())
	ts.Setenv("PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

func number(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}
