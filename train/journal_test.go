package train

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeJournal lets processes write a journal of some steps each, and returns its
// lines.
func writeJournal(t *testing.T, dir string, steps ...int) [][]byte {
	t.Helper()
	for _, n := range steps {
		j, err := openJournal(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			j.write(Record{T: "step", Step: uint64(i + 1), Lo: 2, Hi: 4, Gradient: "00000000000000a1"})
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, JournalName))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

// reread reads lines as a journal.
func reread(t *testing.T, dir string, lines [][]byte) *Journal {
	t.Helper()
	j, err := readJournal(filepath.Join(dir, JournalName), bytes.NewReader(bytes.Join(lines, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestAJournalOfSeveralProcessesIsOneChain(t *testing.T) {
	dir := t.TempDir()
	j := reread(t, dir, writeJournal(t, dir, 3, 0, 2))
	if len(j.Records) != 8 || len(j.Flaws)+len(j.Torn)+j.Old > 0 {
		t.Errorf("%d records, want 8; flaws %v, torn %v, %d old", len(j.Records), j.Flaws, j.Torn, j.Old)
	}
	for i, r := range j.Records {
		if r.Number != uint64(i+1) || r.Line != i+1 {
			t.Errorf("record %d is number %d on line %d", i+1, r.Number, r.Line)
		}
	}
}

func TestEveryFlippedBitOfAJournalShows(t *testing.T) {
	dir := t.TempDir()
	lines := writeJournal(t, dir, 2, 1)
	const line = 1 // a step
	for at := range len(lines[line]) - 1 {
		for bit := range 8 {
			changed := slices.Clone(lines)
			changed[line] = slices.Clone(lines[line])
			if changed[line][at] ^= 1 << bit; changed[line][at] == '\n' {
				continue // two lines, of which the second is no record
			}
			j := reread(t, dir, changed)
			if len(j.Flaws) == 0 {
				t.Fatalf("bit %d of byte %d is no flaw: %s", bit, at, changed[line])
			}
			if f := j.Flaws[0]; f.Line != line+1 && f.Line != line+2 {
				t.Fatalf("bit %d of byte %d is blamed on %v", bit, at, f)
			}
		}
	}
}

func TestWhatIsDoneToAJournalIsTold(t *testing.T) {
	tests := []struct {
		name   string
		change func(l [][]byte) [][]byte
		flaws  []string // LINE: what the reason must hold
		torn   []int
	}{
		{"changed", func(l [][]byte) [][]byte {
			l[2] = bytes.Replace(l[2], []byte("a1"), []byte("a2"), 1)
			return l
		}, []string{"3: was changed after it was written"}, nil},
		{"taken out", func(l [][]byte) [][]byte { return slices.Delete(l, 2, 4) }, []string{"3: is number 5 of the journal, where number 3 belongs: lines before it are missing"}, nil},
		{"the first taken out", func(l [][]byte) [][]byte { return l[1:] }, []string{"1: is number 2"}, nil},
		{"moved", func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, []string{"3: is number 4", "4: is number 3", "5: is number 5"}, nil},
		{"repeated", func(l [][]byte) [][]byte { return slices.Insert(l, 2, l[1]) }, []string{"3: is number 2 of the journal, where number 3 belongs: it was put in"}, nil},
		{"put in", func(l [][]byte) [][]byte { return slices.Insert(l, 2, []byte("{\"t\":\"step\"}\n")) }, []string{"3: has no checksum"}, nil},
		{"made none", func(l [][]byte) [][]byte { l[2] = append([]byte("x"), l[2]...); return l }, []string{"3: is no record"}, nil},
		{"cut off by a crash", func(l [][]byte) [][]byte { n := len(l) - 1; l[n] = l[n][:len(l[n])/2]; return l }, nil, []int{6}},
		{"cut off within", func(l [][]byte) [][]byte { l[2] = append(l[2][:9:9], '\n'); return l }, []string{"3: is no record", "4: is number 4"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j := reread(t, dir, tt.change(writeJournal(t, dir, 5)))
			var got []string
			for i, f := range j.Flaws {
				got = append(got, fmt.Sprintf("%d: %s", f.Line, f.Reason))
				if want := tt.flaws; i < len(want) {
					number, reason, _ := strings.Cut(want[i], ": ")
					if fmt.Sprint(f.Line) == number && strings.Contains(f.Reason, reason) {
						got[i] = want[i]
					}
				}
			}
			if !slices.Equal(got, tt.flaws) || !slices.Equal(j.Torn, tt.torn) {
				t.Errorf("flaws %q, want %q; torn %v, want %v", got, tt.flaws, j.Torn, tt.torn)
			}
		})
	}
}

func TestAProcessGoesOnAfterHalfALine(t *testing.T) {
	for _, left := range []int{1, 10, 60} {
		dir := t.TempDir()
		lines := writeJournal(t, dir, 3)
		lines[3] = lines[3][:left]
		if err := os.WriteFile(filepath.Join(dir, JournalName), bytes.Join(lines, nil), 0o644); err != nil {
			t.Fatal(err)
		}
		j := reread(t, dir, writeJournal(t, dir, 2))
		if len(j.Flaws) > 0 || !slices.Equal(j.Torn, []int{4}) || len(j.Records) != 6 {
			t.Errorf("%d bytes left: flaws %v, torn %v, %d records", left, j.Flaws, j.Torn, len(j.Records))
		}
		// The last whole line of the process before, taken out, is missed.
		lines = writeJournal(t, dir)
		if j := reread(t, dir, slices.Delete(lines, 2, 3)); len(j.Flaws) == 0 {
			t.Error("nobody misses the line before the half one")
		}
	}
}

func TestAJournalWithoutSumsIsRead(t *testing.T) {
	dir := t.TempDir()
	old := [][]byte{[]byte("{\"t\":\"start\"}\n"), []byte("{\"t\":\"step\",\"st"), []byte("{\"t\":\"start\"}\n"), []byte("{\"t\":\"step\"}\n")}
	if j := reread(t, dir, old); j.Old != 2 || len(j.Records) != 2 || !slices.Equal(j.Torn, []int{2}) || len(j.Flaws) > 0 {
		t.Errorf("%+v", j)
	}
	// This program goes on with it.
	if err := os.WriteFile(filepath.Join(dir, JournalName), bytes.Join(old, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	if j := reread(t, dir, writeJournal(t, dir, 2)); j.Old != 2 || len(j.Records) != 5 || len(j.Flaws) > 0 {
		t.Errorf("%+v", j)
	}
}
