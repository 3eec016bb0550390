package dataset

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dlnode/dlnode/dataset/pack"
)

// named is a spec for data of any kind: peers compare specs, and never open them.
var named = &Synthetic{Samples: 8, TestSamples: 2, Features: 2, Classes: 2, Seed: 1}

// everyShare is everyEncoding, and what has weights.
func everyShare(t *testing.T) map[string]Dataset {
	all := everyEncoding(t)
	weighed, err := letters(t).Weigh([]float32{1, 0, 2.5, 3, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	all["weighed"] = weighed
	made, _, err := (&Synthetic{Samples: 30, TestSamples: 3, Features: 3, Classes: 2, Seed: 4}).Generate()
	if err != nil {
		t.Fatal(err)
	}
	all["synthetic"] = made
	return all
}

func share(t testing.TB, train, test Dataset) *Share {
	t.Helper()
	s, err := NewShare(t.Context(), named, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASharedDataSetIsTheSameDataSet(t *testing.T) {
	for name, d := range everyShare(t) {
		dir := filepath.Join(t.TempDir(), "out")
		if err := Pack(t.Context(), given{d}, Env{}, dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		inPack, _ := opened(t, &Packed{Path: dir}, Env{})
		origin := share(t, d, d)
		if got := share(t, inPack, inPack); got.set.Train != origin.set.Train {
			t.Errorf("%s: who has the data in a pack shares %v, who has them otherwise %v", name, got.set.Train, origin.set.Train)
		}
		keep := t.TempDir()
		train, test := opened(t, named, Env{Peers: origin, KeepDir: keep, KeepBytes: 1 << 20})
		sameSamples(t, name, d, train)
		sameSamples(t, name, d, test)
		again := share(t, train, test) // from what is here now
		if !bytes.Equal(again.text, origin.text) {
			t.Errorf("%s: who has the data from peers tells\n%s, want\n%s", name, again.text, origin.text)
		}
		third, _ := opened(t, named, Env{Peers: again, KeepDir: t.TempDir(), KeepBytes: 1 << 20})
		sameSamples(t, name, d, third)
		alone, _ := opened(t, named, Env{Peers: nobody{}, KeepDir: keep, KeepBytes: 1 << 20})
		sameSamples(t, name, d, alone)
	}
}

func sameSamples(t *testing.T, name string, want, got Dataset) {
	t.Helper()
	if got.Fingerprint() != want.Fingerprint() {
		t.Errorf("%s: another fingerprint", name)
	}
	if diff := cmp.Diff(readAll(t, want), readAll(t, got)); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
	if diff := cmp.Diff(want.Info(), got.Info(), cmp.Comparer(func(a, b *Preprocess) bool { return (a == nil) == (b == nil) })); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
	if diff := cmp.Diff(weightsOf(want), weightsOf(got)); diff != "" {
		t.Errorf("%s: weights: %s", name, diff)
	}
	if p, ok := got.(*packed); ok {
		if print, err := p.fingerprint(); err != nil || print != want.Fingerprint() {
			t.Errorf("%s: the content has the fingerprint %x, %v", name, print, err)
		}
	}
}

// nobody is a source that has nothing.
type nobody struct{}

func (nobody) String() string { return "nobody" }
func (nobody) Whole(context.Context, string, int64, func([]byte) error) ([]byte, error) {
	return nil, fs.ErrNotExist
}
func (nobody) Part(context.Context, string, int64, []byte, func(int) error) (int, error) {
	return 0, fs.ErrNotExist
}

func TestDataOfAnotherSpecAreRefused(t *testing.T) {
	s := share(t, letters(t), nil)
	other := *named
	other.Seed++
	env := Env{Peers: s, KeepDir: t.TempDir(), KeepBytes: 1 << 20}
	if _, _, err := Open(t.Context(), &other, env); err == nil || !strings.Contains(err.Error(), `it was made by {`) {
		t.Errorf("another seed: %v", err)
	}
	if KeptFromPeers(env.KeepDir, &other) || KeptFromPeers(env.KeepDir, named) {
		t.Error("what was refused is kept")
	}
	opened(t, named, env)
	if KeptFromPeers(env.KeepDir, &other) || !KeptFromPeers(env.KeepDir, named) {
		t.Error("what was opened isn't kept")
	}
	if _, _, err := Open(t.Context(), named, Env{Peers: s}); err == nil || !strings.Contains(err.Error(), "need a directory") {
		t.Errorf("nowhere to keep them: %v", err)
	}
}

func TestOnlyOneDataSetIsKept(t *testing.T) {
	keep := t.TempDir()
	env := Env{KeepDir: keep, KeepBytes: 1 << 20}
	env.Peers = share(t, letters(t), letters(t))
	opened(t, named, env)
	if err := os.Remove(filepath.Join(keep, setName)); err != nil {
		t.Fatal(err)
	}
	env.Peers = share(t, pictures(), nil)
	train, _ := opened(t, named, env)
	left, err := filepath.Glob(filepath.Join(keep, "pack-*"))
	if err != nil || len(left) != 1 {
		t.Errorf("%v is kept, %v; want one pack", left, err)
	}
	sameSamples(t, "pictures", pictures(), train)
}

func TestALabelSpreadOutIsSharedAsItWas(t *testing.T) {
	d := letters(t)
	if a, b := share(t, d, nil), share(t, OneHot(d), nil); !bytes.Equal(a.text, b.text) {
		t.Errorf("%s and\n%s", a.text, b.text)
	}
}

// FuzzShare opens what a peer may tell: any description, any index.
func FuzzShare(f *testing.F) {
	d, err := NewMemory(Info{Name: "d", Input: []int{2}, Target: 1, Classes: 2}, nil, []float32{1, 2, 3, 4}, []float32{0, 1})
	if err != nil {
		f.Fatal(err)
	}
	s := share(f, d, d)
	index, err := s.Whole(f.Context(), s.set.Train.Index.String()+"/"+pack.IndexName, 1<<20, func([]byte) error { return nil })
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.text, index)
	f.Add([]byte(`{"version":1,"kind":"synthetic","spec":{}}`), index)
	f.Add(s.text, []byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text, index []byte) {
		train, _, err := Open(t.Context(), named, Env{Peers: &liar{s, text, index}, KeepDir: t.TempDir(), KeepBytes: 1 << 16})
		if err != nil {
			return
		}
		defer train.(*packed).Close()
		for i := range train.Len() {
			x, y := make([]float32, train.Info().InputLen()), make([]float32, train.Info().Target)
			if _, err := train.Read(i, x, y); err != nil {
				return
			}
		}
	})
}

// liar tells what it likes, and passes it itself.
type liar struct {
	*Share
	text, index []byte
}

func (l *liar) Whole(_ context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	text := l.index
	if name == setName {
		text = l.text
	}
	if int64(len(text)) > limit {
		return nil, errors.New("too long")
	}
	return text, check(text)
}
