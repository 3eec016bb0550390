package chart

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlnode/dlnode/train"
)

// journal writes lines into DIR/NODE/journal.jsonl. @N in a line stands for the time
// N milliseconds after some beginning.
func journal(t *testing.T, dir, node string, lines ...string) {
	t.Helper()
	path := filepath.Join(dir, node)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, line := range lines {
		before, after, found := strings.Cut(line, "@")
		var ms int
		if found {
			n, err := fmt.Sscanf(after, "%d", &ms)
			if n != 1 {
				t.Fatal(line, err)
			}
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
			line = before + `"time":"` + at.Format(time.RFC3339Nano) + `"` + strings.TrimLeft(after, "0123456789")
		}
		b.WriteString(line + "\n")
	}
	if err := os.WriteFile(filepath.Join(path, train.JournalName), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir string) *Run {
	t.Helper()
	r, err := ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARunIsWhatAllItsNodesTell(t *testing.T) {
	dir := t.TempDir()
	// b is lost, which both of its neighbours saw, and its last words are cut off.
	journal(t, dir, "a",
		`{"t":"start",@0}`,
		`{"t":"step","kind":"update",@100,"transition":1,"step":1,"world":3,"samples":8,"loss":2}`,
		`{"t":"step","kind":"evaluate",@150,"transition":2,"step":1,"world":3,"samples":80}`,
		`{"t":"epoch",@150,"epoch":1,"step":1,"samples":8,"learning_rate":0.5,"values":[{"name":"loss","value":2},{"name":"val_loss","value":"NaN"}]}`,
		`{"t":"event","kind":"lost",@200,"generation":2,"about":"b"}`,
		`{"t":"step","kind":"update",@300,"transition":3,"step":2,"world":2,"samples":8,"loss":1}`,
		`{"t":"epoch",@320,"epoch":2,"step":2,"samples":8,"learning_rate":0.25,"values":[{"name":"loss","value":1}]}`)
	journal(t, dir, "b",
		`{"t":"start",@1}`,
		`{"t":"step","kind":"update",@99,"transition":1,"step":1,"world":3,"samples":8,"loss":2}`,
		`{"t":"step","kind":"up`)
	journal(t, dir, "c",
		`{"t":"start",@2}`,
		`{"t":"step","kind":"update",@101,"transition":1,"step":1,"world":3,"samples":8,"loss":2}`,
		`{"t":"event","kind":"lost",@201,"generation":2,"about":"the ring"}`,
		`{"t":"epoch",@330,"epoch":2,"step":2,"samples":8,"learning_rate":0.25,"values":[{"name":"loss","value":1}]}`,
		`{"t":"event","kind":"joined",@400,"generation":3,"about":"d"}`)
	r := read(t, dir)
	ms := time.Millisecond
	if diff := cmp.Diff([]Step{{99 * ms, 1, 3, 8, 2}, {300 * ms, 2, 2, 8, 1}}, r.Steps); diff != "" {
		t.Errorf("steps: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]Mark{{200 * ms, "lost"}, {400 * ms, "joined"}}, r.Marks); diff != "" {
		t.Errorf("marks: -want +got:\n%s", diff)
	}
	if len(r.Epochs) != 2 || r.Epochs[0].LR != 0.5 || r.Epochs[1].value("loss") != 1 || !math.IsNaN(r.Epochs[0].value("val_loss")) {
		t.Errorf("epochs are %v", r.Epochs)
	}
	if r.Broken != 1 {
		t.Errorf("%d broken lines, want 1", r.Broken)
	}
	if r.Name != filepath.Base(dir) {
		t.Errorf("the run is called %q", r.Name)
	}
}

func TestPausesAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	const step = `{"t":"step","kind":"update",@%d,"transition":%d,"step":%d,"world":1,"samples":8}`
	journal(t, dir, "a",
		`{"t":"start",@0}`, fmt.Sprintf(step, 1000, 1, 1), `{"t":"end",@1100}`,
		`{"t":"start",@7200000}`, fmt.Sprintf(step, 7200500, 2, 2), // two hours later
		`{"t":"start",@7201500}`,         // a node joins
		fmt.Sprintf(step, 7261500, 3, 3)) // a step takes a minute
	var at []time.Duration
	for _, s := range read(t, dir).Steps {
		at = append(at, s.At/time.Millisecond)
	}
	if want := []time.Duration{1000, 1600, 62600}; !slices.Equal(at, want) {
		t.Errorf("steps are done at %v ms, want %v", at, want)
	}
}

func TestANodesOwnDirectoryIsARun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd [*] name?")
	journal(t, dir, "n", `{"t":"start",@0}`, `{"t":"step","kind":"update",@5,"transition":1,"step":1,"world":1,"samples":8}`)
	for _, path := range []string{dir, filepath.Join(dir, "n")} {
		if r := read(t, path); len(r.Steps) != 1 {
			t.Errorf("%s has %d steps, want 1", path, len(r.Steps))
		}
	}
}

func TestWhatIsNoRunIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "nothing")} {
		if _, err := ReadRun(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("reading %s: %v", path, err)
		}
	}
	journal(t, dir, "n", "{}", strings.Repeat("x", train.MaxJournalLine+1))
	if _, err := ReadRun(dir); err == nil || !strings.Contains(err.Error(), train.JournalName+":2: ") {
		t.Errorf("an endless line: %v", err)
	}
}
