package packing

import "testing"

func TestPackingPaysWhereTheLinkIsTheBound(t *testing.T) {
	const gbit, gbyte = 1e9 / 8, 1e9
	for _, c := range []struct {
		what  string
		s     Speeds
		ratio float64
		want  bool
	}{
		{"an office network", Speeds{1 * gbit, 10 * gbyte, 10 * gbyte}, 0.6, true},
		{"a data centre", Speeds{10 * gbit, 10 * gbyte, 10 * gbyte}, 0.6, true},
		{"within one machine", Speeds{3 * gbyte, 10 * gbyte, 10 * gbyte}, 0.6, false},
		{"within one machine, zeros", Speeds{3 * gbyte, 10 * gbyte, 10 * gbyte}, 0.1, true},
		{"portable code on a quick network", Speeds{25 * gbit, 1 * gbyte, 1 * gbyte}, 0.6, false},
		{"nothing is saved", Speeds{1 * gbit, 10 * gbyte, 10 * gbyte}, 1, false},
		{"it grows", Speeds{1 * gbit, 10 * gbyte, 10 * gbyte}, 1.01, false},
		{"nothing is measured", Speeds{}, 0.6, true},
		{"the link is not", Speeds{0, 10 * gbyte, 10 * gbyte}, 0.99, true},
		{"only the link is", Speeds{Link: 3 * gbyte}, 0.99, true},
	} {
		if got := Pays(c.s, c.ratio); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
