//go:build unix

package e2e

import (
	"slices"
	"testing"

	"github.com/dlnode/dlnode/internal/lives"
)

// lives reads the journals of all nodes.
func (f *fleet) lives() []lives.Life {
	f.t.Helper()
	return readLives(f.t, f.dir, f.nodes())
}

// readLives reads journals, and checks that their chains hold.
func readLives(t *testing.T, dir string, nodes []string) []lives.Life {
	t.Helper()
	all, flaws, err := lives.Read(dir, nodes)
	if err != nil {
		t.Fatal(err)
	}
	for _, flaw := range flaws {
		t.Error(flaw)
	}
	return all
}

// audit checks what the journals of a whole run must show.
func (f *fleet) audit(want verdict) []lives.Life {
	f.t.Helper()
	all := f.lives()
	for _, complaint := range slices.Concat(lives.Forwards(all), lives.Complete(all, want.transition),
		lives.Shares(all, f.job.micro), lives.ExactlyOnce(all, f.job.samples)) {
		f.t.Error(complaint)
	}
	return all
}
