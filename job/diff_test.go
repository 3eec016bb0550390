package job

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDifferencesAreToldFieldByField(t *testing.T) {
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(small) }
	for _, c := range []struct {
		name, there string
		want        []string
	}{
		{"nothing", small, nil},
		{"a number", small + "optimizer: {adam: {learning_rate: 0.002}}", []string{"optimizer.adam.learning_rate: 0.001 here, 0.002 there"}},
		{"another kind", small + "optimizer: sgd", []string{"optimizer: adam here, sgd there"}},
		{"a word", edit("small", "large"), []string{"name: small here, large there"}},
		{"several", small + "seed: 18446744073709551615\nbatch: {global: 64}\n", []string{
			"batch.global: 128 here, 64 there", "seed: 1 here, 18446744073709551615 there",
		}},
		{"none and some", small + "validation: {split: 0.25}", []string{`validation: none here, {"split":0.25} there`}},
		{"inside a layer", edit("128", "64"), []string{"model[1].dense.units: 128 here, 64 there"}},
		{"a layer more", edit("  - dropout", "  - flatten\n  - dropout"), []string{"model[2]: flatten only there"}},
		{"a layer less", edit("  - dropout: {rate: 0.2}\n", ""), []string{`model[2]: dropout {"rate":0.2} only here`}},
		{"another layer", edit("dropout: {rate: 0.2}", "flatten"), []string{"model[2]: dropout here, flatten there"}},
		{"a metric", edit("[accuracy]", "[accuracy, mse]"), []string{"metrics[1]: mse only there"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Diff(parse(t, small).Canonical(), parse(t, c.there).Canonical())
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDiffIsEmptyForEqualJobsOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyJob(t).Canonical(), anyJob(t).Canonical()
		if lines := Diff(a, a); lines != nil {
			t.Fatal(lines)
		}
		if equal := string(a) == string(b); equal != (len(Diff(a, b)) == 0) {
			t.Fatalf("equal is %v, but: %q", equal, Diff(a, b))
		}
	})
}

func TestDiffOfFieldsThatOneProgramLacks(t *testing.T) {
	got := Diff([]byte(`{"a":1,"old":true}`), []byte(`{"a":1,"new":[2]}`))
	if diff := cmp.Diff([]string{"new: [2] only there", "old: true only here"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDiffSurvivesDamage(t *testing.T) {
	got := Diff([]byte(`{"a":1}`), []byte(`{"a":`))
	if diff := cmp.Diff([]string{"the whole job: readable here, unreadable (unexpected EOF) there"}, got); diff != "" {
		t.Error(diff)
	}
}
