package dataset

import (
	"context"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func synthetic(t testing.TB, s Synthetic) (train, test *Memory) {
	t.Helper()
	train, test, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return train, test
}

// A change of these values changes every trajectory that trains on the teacher.
func TestTheTeacherGivesTheSameBitsEverywhere(t *testing.T) {
	for _, c := range []struct {
		spec        Synthetic
		train, test string
	}{
		{Synthetic{Samples: 100, TestSamples: 50, Features: 8, Classes: 5, Seed: 1},
			"d14adc88e9394d087f1059ae85f57d811c27299db6586a802ee497e1e06aa2ea",
			"62c6fd69a28a9c4240bea7808b04833c33ed5c5433a63e5ce7361994968d6954",
		},
		{Synthetic{Samples: 64, TestSamples: 16, Features: 3, Classes: 0, Seed: 1 << 40},
			"257f043fe815776f9d4882c9c13fec4c315d33d8a955d9b72b4ecad3fda9cb82",
			"84c8653e5189a692705f89c596b6a8a596281989e1a77ea33e014101612b66a2",
		},
		{Synthetic{Samples: 64, TestSamples: 16, Features: 9, Classes: 3, Seed: 2, Vocabulary: 12},
			"bd438e4f8a44b167acfff0b5dbad2ce480648a8c981e7fdaba6adc8ad73df300",
			"a1ae3da13ecd3be5b87659133c9d845d1b97f160326807adba565e29f6bc0aec",
		},
	} {
		train, test := synthetic(t, c.spec)
		if got := hexOf(train.Fingerprint()); got != c.train {
			t.Errorf("%+v: train set is %s, want %s", c.spec, got, c.train)
		}
		if got := hexOf(test.Fingerprint()); got != c.test {
			t.Errorf("%+v: test set is %s, want %s", c.spec, got, c.test)
		}
	}
}

func TestSequencesOfWordsEndWithPadding(t *testing.T) {
	const features, vocabulary = 7, 5
	train, _ := synthetic(t, Synthetic{Samples: 500, TestSamples: 1, Features: features, Classes: 3, Seed: 1, Vocabulary: vocabulary})
	words, lengths := map[float32]int{}, map[int]int{}
	for _, s := range readAll(t, train) {
		n := slices.Index(s.X, 0)
		if n < 0 {
			n = features
		}
		lengths[n]++
		for j, x := range s.X {
			if (x == 0) != (j >= n) {
				t.Fatalf("padding stands before a word: %v", s.X)
			}
			words[x]++
		}
	}
	if len(words) != vocabulary || len(lengths) != features {
		t.Errorf("500 sequences have words %v and lengths %v, want all of %d, and 1 to %d", words, lengths, vocabulary, features)
	}
	for x := range words {
		if x < 0 || x >= vocabulary || x != float32(int(x)) {
			t.Errorf("%v is no word", x)
		}
	}
}

func TestASampleDependsOnSeedAndIDAlone(t *testing.T) {
	short, rest := synthetic(t, Synthetic{Samples: 10, TestSamples: 20, Features: 4, Classes: 3, Seed: 9})
	long, _ := synthetic(t, Synthetic{Samples: 30, TestSamples: 1, Features: 4, Classes: 3, Seed: 9})
	all := append(readAll(t, short), readAll(t, rest)...)
	if diff := cmp.Diff(readAll(t, long), all); diff != "" {
		t.Error(diff)
	}
	for i, s := range all {
		if s.ID != uint64(i) {
			t.Errorf("sample %d has id %d", i, s.ID)
		}
	}
	other, _ := synthetic(t, Synthetic{Samples: 30, TestSamples: 1, Features: 4, Classes: 3, Seed: 10})
	if cmp.Equal(readAll(t, other), all) {
		t.Error("another seed gives the same samples")
	}
}

func TestTheTeacherTeachesEveryClass(t *testing.T) {
	train, _ := synthetic(t, Synthetic{Samples: 2000, TestSamples: 1, Features: 16, Classes: 4, Seed: 1})
	count := make([]int, 4)
	for _, s := range readAll(t, train) {
		count[int(s.Y[0])]++
		if slices.ContainsFunc(s.X, func(v float32) bool { return v < -1 || v >= 1 }) {
			t.Fatalf("sample %d has inputs outside [-1, 1): %v", s.ID, s.X)
		}
	}
	if slices.Min(count) < 100 {
		t.Errorf("classes have %v samples of 2000, want at least 100 each", count)
	}
}

func TestARegressionHasATargetThatVaries(t *testing.T) {
	train, _ := synthetic(t, Synthetic{Samples: 500, TestSamples: 1, Features: 6, Seed: 3})
	if info := train.Info(); info.Classes != 0 || info.Target != 1 {
		t.Errorf("info is %+v, want one target and no classes", info)
	}
	var sum, squares float64
	for _, s := range readAll(t, train) {
		sum += float64(s.Y[0])
		squares += float64(s.Y[0]) * float64(s.Y[0])
	}
	if sd := math.Sqrt(squares/500 - sum/500*sum/500); sd < 0.1 {
		t.Errorf("targets have a standard deviation of %v, want at least 0.1", sd)
	}
}

func TestEveryKindHasADefaultSpec(t *testing.T) {
	for _, kind := range Kinds() {
		spec, ok := NewSpec(kind)
		if !ok || spec.Kind() != kind {
			t.Errorf("NewSpec(%q) is %v, %v", kind, spec, ok)
			continue
		}
		// Paths are the only fields that can have no default.
		if err := spec.Validate(); (err != nil) != slices.Contains([]string{"idx", "image_folder", "text_folder", "text_csv", "csv", "npz", "packed"}, kind) {
			t.Errorf("the default %s: %v", kind, err)
		}
		other, _ := NewSpec(kind)
		if reflect.TypeOf(spec).Elem().NumField() > 0 && other == spec {
			t.Errorf("NewSpec(%q) hands out one value twice", kind)
		}
	}
	if spec, ok := NewSpec("imagenet"); ok || spec != nil {
		t.Errorf("NewSpec of an unknown kind is %v, %v", spec, ok)
	}
}

func TestBadFieldsAreToldByNameAndAllAtOnce(t *testing.T) {
	s := &Synthetic{Samples: 0, TestSamples: -1, Features: 2, Classes: 1}
	const want = "dataset synthetic: samples: 0 is not allowed (want 1 to 33554432, which makes 67108864 values)\n" +
		"test_samples: -1 is not allowed (want 1 to 33554432, which makes 67108864 values)\n" +
		"classes: 1 is not allowed (want 0 for regression, or 2 to 4096)"
	if _, _, err := Open(t.Context(), s, Env{}); err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
	if err := (&Synthetic{Samples: 1, TestSamples: 1}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "features: 0 ") {
		t.Errorf("no features: %v", err)
	}
}

type foreign struct{}

func (foreign) Kind() string    { return "foreign" }
func (foreign) Validate() error { return nil }

func TestOpenRefusesAForeignSpecAndACancelledContext(t *testing.T) {
	_, _, err := Open(t.Context(), foreign{}, Env{})
	if err == nil || !strings.Contains(err.Error(), "want one of: mnist, ") {
		t.Errorf("foreign spec: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec, _ := NewSpec("synthetic")
	if _, _, err := Open(ctx, spec, Env{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
