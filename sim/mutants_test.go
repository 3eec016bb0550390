package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A mutant is planted by the -overlay flag of the go command: the compiler is
// given the edited text of one file and every other file as it is, so nothing is
// ever changed in the tree, and the product knows nothing of mutants.
//
//	file ── edits ──► overlay.json ── go test -c ──► sim.test ── TestSeeds ──► FOUND seed=17 checker=…
//
// What is asked of the simulator: under -stop TestSeeds runs seeds 0, 1, 2, … in
// order, prints one line to stdout at the first that fails,
//
//	FOUND seed=<n> checker=<word> <sentence>
//
// and exits 1. If none fails it exits 0. A panic or a hang of the test binary is
// not a find: the simulator has to say what was wrong. That a find is no false
// alarm is for TestSeeds to show on the product as it is.

var (
	allMutants   = flag.Bool("mutants", false, "plant every bug of mutants.md and see that it is found; takes minutes, so add -timeout 0")
	oneMutant    = flag.String("mutant", "", "plant only the bug of this name")
	mutantsTable = flag.String("mutants-out", "", "write the table of what was found to this file")
)

const (
	mutantSeeds = 1000            // so many have to be enough
	mutantLimit = 5 * time.Minute // for them, once built
)

// moduleRoot is where go.mod is, seen from this package.
const moduleRoot = ".."

func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			src, err := m.source()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), m.file, src, parser.SkipObjectResolution); err != nil {
				t.Fatal(err)
			}
			if tidy, err := format.Source(src); err != nil || !bytes.Equal(tidy, src) {
				t.Errorf("%s is not gofmt-formatted once the bug is in it (%v)", m.file, err)
			}
		})
	}
}

// source returns the text of the mutant's file with the bug in it.
func (m mutant) source() ([]byte, error) {
	if strings.HasSuffix(m.file, "_test.go") {
		return nil, fmt.Errorf("%s is no code of the product", m.file)
	}
	b, err := os.ReadFile(filepath.Join(moduleRoot, filepath.FromSlash(m.file)))
	if err != nil {
		return nil, err
	}
	src := string(b)
	for _, e := range m.edits {
		if n := strings.Count(src, e.old); n != 1 {
			return nil, fmt.Errorf("%s has %d times what is to be replaced, want once:\n%s", m.file, n, e.old)
		}
		src = strings.Replace(src, e.old, e.new, 1)
	}
	if src == string(b) {
		return nil, fmt.Errorf("%s stays as it is", m.file)
	}
	return []byte(src), nil
}

// mutantRow is a line of mutants.md: number, name, who chose it.
var mutantRow = regexp.MustCompile("(?m)^\\| *(\\d+) \\| `([a-z-]+)` \\| (\\w+) \\|")

func TestEveryMutantIsOnTheListAndOnlyThose(t *testing.T) {
	b, err := os.ReadFile("mutants.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, planted []string
	for _, row := range mutantRow.FindAllSubmatch(b, -1) {
		listed = append(listed, fmt.Sprintf("%s %s by %s", row[1], row[2], row[3]))
	}
	for i, m := range mutants {
		planted = append(planted, fmt.Sprintf("%d %s by %s", i+1, m.name, m.by))
	}
	if !slices.Equal(listed, planted) {
		t.Errorf("mutants.md lists\n\t%s\nhere are\n\t%s", strings.Join(listed, "\n\t"), strings.Join(planted, "\n\t"))
	}
}

func TestMutantsAreFound(t *testing.T) {
	chosen := chooseMutants(t)
	var table strings.Builder
	table.WriteString("| mutant | chosen by | seeds to find | checker | found as |\n|---|---|---:|---|---|\n")
	for _, m := range chosen {
		t.Run(m.name, func(t *testing.T) {
			f, err := m.hunt(t)
			if err != nil {
				t.Error(err)
				f = sighting{sentence: "**not found**"}
			}
			table.WriteString(f.row(m))
		})
	}
	fmt.Print("\n" + table.String())
	if *mutantsTable != "" {
		if err := os.WriteFile(*mutantsTable, []byte(table.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// chooseMutants returns those that the flags ask for.
func chooseMutants(t *testing.T) []mutant {
	t.Helper()
	if *oneMutant != "" {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == *oneMutant })
		if i < 0 {
			t.Fatalf("-mutant %s: mutants.md has no such name", *oneMutant)
		}
		return mutants[i : i+1]
	}
	if !*allMutants {
		t.Skip("each bug is built and hunted for, which takes minutes: say -mutants -timeout 0, or -mutant and a name")
	}
	if _, limited := t.Deadline(); limited {
		t.Fatalf("%d bugs may take longer than the test's own limit: say -timeout 0", len(mutants))
	}
	return mutants
}

// sighting is what the simulator said.
type sighting struct {
	seeds    int // that it took
	checker  string
	sentence string
}

func (f sighting) row(m mutant) string {
	seeds := ""
	if f.checker != "" {
		seeds = strconv.Itoa(f.seeds)
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", m.name, m.by, seeds, f.checker, strings.ReplaceAll(f.sentence, "|", `\|`))
}

// hunt builds the simulator with the bug and lets it look for it. The error says
// in what way it was not found.
func (m mutant) hunt(t *testing.T) (sighting, error) {
	bin, err := m.build(t)
	if err != nil {
		return sighting{}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), mutantLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, bin, "-test.run", "^TestSeeds$", "-test.timeout", "0", "-seeds", strconv.Itoa(mutantSeeds), "-stop")
	c.Stdout, c.Stderr, c.WaitDelay = &stdout, &stderr, time.Second
	ended := c.Run()
	if f, ok := parseSighting(stdout.Bytes()); ok {
		return f, f.replays(t, bin)
	}
	said := lastLines(stdout.String() + stderr.String())
	switch {
	case ctx.Err() != nil:
		return sighting{}, fmt.Errorf("not found within %s\n%s", mutantLimit, said)
	case ended != nil:
		return sighting{}, fmt.Errorf("the simulator ended with %v and no word of what is wrong\n%s", ended, said)
	}
	return sighting{}, fmt.Errorf("not found in %d seeds\n%s", mutantSeeds, said)
}

// replays plays the seed three times with its trace, which has to be the same to
// the byte, and shows it where only one mutant was asked for.
func (f sighting) replays(t *testing.T, bin string) error {
	var first []byte
	for i := range 3 {
		out, err := exec.CommandContext(t.Context(), bin, "-test.run", "^TestSeeds$", "-seed", strconv.Itoa(f.seeds-1)).Output()
		if ended := (*exec.ExitError)(nil); !errors.As(err, &ended) {
			return fmt.Errorf("seed %d, played again, ends with %v", f.seeds-1, err)
		}
		played, _, _ := bytes.Cut(out, []byte("\ntrace: "))
		switch {
		case i == 0:
			first = played
		case !bytes.Equal(played, first):
			return fmt.Errorf("seed %d, played again, is another history", f.seeds-1)
		}
	}
	if *oneMutant != "" {
		fmt.Printf("%s\nthree times the same: %d lines, SHA-256 %x\n", first, bytes.Count(first, []byte("\n"))+1, sha256.Sum256(first))
	}
	return nil
}

// build compiles this package's tests with the bug in the product. What no bug
// touches comes out of the go command's cache.
func (m mutant) build(t *testing.T) (bin string, err error) {
	dir := t.TempDir()
	bin = filepath.Join(dir, "sim.test")
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("with the bug the product does not build: %w\n%s", err, lastLines(string(out)))
	}
	return bin, nil
}

// overlay writes the edited file, and the go command's note of what it replaces.
func (m mutant) overlay(dir string) (note string, err error) {
	src, err := m.source()
	if err != nil {
		return "", err
	}
	original, err := filepath.Abs(filepath.Join(moduleRoot, filepath.FromSlash(m.file)))
	if err != nil {
		return "", err
	}
	edited, note := filepath.Join(dir, "edited.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]map[string]string{"Replace": {original: edited}})
	if err != nil {
		return "", err
	}
	return note, errors.Join(os.WriteFile(edited, src, 0o644), os.WriteFile(note, b, 0o644))
}

// foundLine is the one line that the simulator owes.
var foundLine = regexp.MustCompile(`(?m)^FOUND seed=(\d+) checker=(\S+) (.*?)\r?$`)

func parseSighting(stdout []byte) (sighting, bool) {
	l := foundLine.FindSubmatch(stdout)
	if l == nil {
		return sighting{}, false
	}
	seed, err := strconv.Atoi(string(l[1]))
	return sighting{seed + 1, string(l[2]), string(l[3])}, err == nil
}

// lastLines returns the end of what a program said.
func lastLines(said string) string {
	const lines = 40
	all := strings.Split(strings.TrimSpace(said), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func TestTheLineOfAFindIsRead(t *testing.T) {
	for said, want := range map[string]sighting{
		"seed 3\nFOUND seed=16 checker=bits node-2 ends with other bits\nFAIL\n": {17, "bits", "node-2 ends with other bits"},
		"FOUND seed=0 checker=hang nothing moved for 60 s":                       {1, "hang", "nothing moved for 60 s"},
		"PASS\n":                         {},
		"not FOUND seed=1 checker=x y\n": {},
	} {
		if got, ok := parseSighting([]byte(said)); got != want || ok != (want != sighting{}) {
			t.Errorf("%q is read as %+v, want %+v", said, got, want)
		}
	}
}
