package dataset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// CSV is a table of numbers and names. Numbers are normalised by what the training
// rows hold, summed without rounding; names become one-hot vectors. Rows and their
// order: see Table.
type CSV struct {
	Table       `yaml:",inline"`
	Target      string   `yaml:"target" json:"target"`           // the column to predict
	TargetType  string   `yaml:"target_type" json:"target_type"` // "class" or "number"
	Numeric     []string `yaml:"numeric" json:"numeric"`         // columns of numbers
	Categorical []string `yaml:"categorical" json:"categorical"` // columns of names
	Ignore      []string `yaml:"ignore" json:"ignore"`           // columns that x does without
	Normalize   string   `yaml:"normalize" json:"normalize"`     // "standard": mean 0 and deviation 1; "minmax": 0 to 1; or "none"
}

// Kind returns "csv".
func (*CSV) Kind() string { return "csv" }

func newCSV() *CSV { return &CSV{Table: tableDefaults(), TargetType: "class", Normalize: "standard"} }

// Validate tells which field is missing or out of its range. Where neither numeric
// nor categorical names a column, all others are features: numeric where every
// field of the training rows is a number.
func (c *CSV) Validate() error {
	var p problems
	c.check(&p)
	p.unless(c.Target != "", "target", `""`, "the name of a column")
	p.unless(c.TargetType == "class" || c.TargetType == "number", "target_type", fmt.Sprintf("%q", c.TargetType), "class or number")
	p.unless(slices.Contains([]string{"standard", "minmax", "none"}, c.Normalize), "normalize", fmt.Sprintf("%q", c.Normalize), "standard, minmax or none")
	seen := map[string]bool{c.Target: true}
	for field, names := range map[string][]string{"numeric": c.Numeric, "categorical": c.Categorical, "ignore": c.Ignore} {
		for i, name := range names {
			p.unless(!seen[name], fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%q", name), "each column once, and not the target")
			seen[name] = true
		}
	}
	return errors.Join(p...)
}

func (c *CSV) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return c.decode(ctx, env, c, c.fill)
}

// Columns say how the fields of a row become x: one value for a number, one for
// each name of a column of names.
type Columns struct {
	Columns []Column `json:"columns"`
}

// Column is one of them.
type Column struct {
	Name   string   `json:"name"`
	Names  []string `json:"names,omitempty"` // of a column of names, sorted; none: it is a number
	Center float64  `json:"center"`          // x = (number − Center) / Scale
	Scale  float64  `json:"scale"`
}

// Len returns the length of x.
func (c *Columns) Len() int {
	n := 0
	for _, col := range c.Columns {
		n += max(1, len(col.Names))
	}
	return n
}

// Encode fills x [Len] with the field of each column.
func (c *Columns) Encode(field func(name string) string, x []float32) error {
	for _, col := range c.Columns {
		n := max(1, len(col.Names))
		if err := col.encode(strings.TrimSpace(field(col.Name)), x[:n]); err != nil {
			return fmt.Errorf("column %s: %w", col.Name, err)
		}
		x = x[n:]
	}
	return nil
}

func (c *Column) encode(v string, x []float32) error {
	if len(c.Names) == 0 {
		f, err := number(v)
		x[0] = float32((f - c.Center) / c.Scale)
		if err == nil && !(math.Abs(float64(x[0])) <= math.MaxFloat32) {
			err = fmt.Errorf("%q, less %v and divided by %v, does not fit into 32 bits", short(v), c.Center, c.Scale)
		}
		return err
	}
	i, known := slices.BinarySearch(c.Names, v)
	if !known {
		return fmt.Errorf("%q is not among the %d names of the training rows", short(v), len(c.Names))
	}
	clear(x)
	x[i] = 1
	return nil
}

func (c *Columns) validate() error {
	if len(c.Columns) == 0 {
		return errors.New("no columns")
	}
	for _, col := range c.Columns {
		finite := math.Abs(col.Center) <= math.MaxFloat64 && math.Abs(col.Scale) <= math.MaxFloat64
		if len(col.Names) == 0 && !(finite && col.Scale != 0) || !slices.IsSorted(col.Names) {
			return fmt.Errorf("column %s: a centre of %v, a scale of %v and %d names don't make a column", short(col.Name), col.Center, col.Scale, len(col.Names))
		}
	}
	return nil
}

// number parses a field as a number that float32 can hold.
func number(v string) (float64, error) {
	f, err := strconv.ParseFloat(v, 64)
	switch {
	case v == "":
		return 0, errors.New("the field is empty, want a number")
	case err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(f):
		return 0, fmt.Errorf("%q is no number", short(v))
	case math.Abs(f) > math.MaxFloat32:
		return 0, fmt.Errorf("%q does not fit into 32 bits", short(v))
	}
	return f, nil
}

// maxNames bounds a column of names.
const maxNames = 1 << 12

// features lists the columns that x is made of, by place, and whether they are
// names.
func (c *CSV) features(ctx context.Context, t *table, target int) (at []int, names map[int]bool, err error) {
	if c.Numeric == nil && c.Categorical == nil {
		for _, name := range c.Ignore {
			if _, err := t.column("ignore", name); err != nil {
				return nil, nil, err
			}
		}
		for i, name := range t.header {
			if i != target && !slices.Contains(c.Ignore, name) {
				at = append(at, i)
			}
		}
		names, err = t.guess(ctx, at)
		return at, names, err
	}
	names = map[int]bool{}
	for _, list := range []struct {
		field string
		cols  []string
	}{{"numeric", c.Numeric}, {"categorical", c.Categorical}} {
		for _, name := range list.cols {
			i, err := t.column(list.field, name)
			if err != nil {
				return nil, nil, err
			}
			at, names[i] = append(at, i), list.field == "categorical"
		}
	}
	slices.Sort(at)
	return at, names, nil
}

// guess tells which columns have a training field that is neither empty nor
// written as a number. NaN, infinities and what is too large are: they make a bad
// row of a column of numbers, and not a column of names.
func (t *table) guess(ctx context.Context, at []int) (names map[int]bool, err error) {
	names = map[int]bool{}
	err = t.each(ctx, t.train, func(_ row, fields []string) error {
		for _, i := range at {
			v := strings.TrimSpace(fields[i])
			if _, err := strconv.ParseFloat(v, 64); errors.Is(err, strconv.ErrSyntax) && v != "" {
				names[i] = true
			}
		}
		return nil
	})
	return names, err
}

// each calls use for some rows in turn.
func (t *table) each(ctx context.Context, rows []row, use func(r row, fields []string) error) error {
	return inOrder(ctx, len(rows), func(i int) ([]string, error) { return rows[i].fields() },
		func(i int, fields []string) error { return use(rows[i], fields) })
}

// fill measures the columns of the training rows, then writes both parts.
func (c *CSV) fill(ctx context.Context, w *setWriter, t *table) error {
	target, err := t.column("target", c.Target)
	if err != nil {
		return err
	}
	at, names, err := c.features(ctx, t, target)
	if err == nil && len(at) == 0 {
		err = errors.New("there is no column beside the target")
	}
	if err != nil {
		return err
	}
	cols, err := c.measure(ctx, t, at, names)
	if err != nil {
		return err
	}
	meta := packMeta{inFloats, Info{Name: "csv", Input: []int{cols.Len()}, Target: 1, Preprocess: &Preprocess{Table: cols}}}
	if c.TargetType == "class" {
		if meta.Info.ClassNames, err = t.classes(ctx, target); err != nil {
			return err
		}
		meta.Info.Classes = len(meta.Info.ClassNames)
	}
	classes := placesOf(meta.Info.ClassNames)
	done := 0
	x := make([]float32, cols.Len())
	for _, rows := range [][]row{t.train, t.test} {
		if rows == nil {
			continue
		}
		p, err := w.part(meta)
		if err != nil {
			return err
		}
		err = t.each(ctx, rows, func(r row, fields []string) error {
			done++
			w.progress(done, len(t.train)+len(t.test))
			y, err := c.encode(t, cols, classes, fields, target, x)
			if err != nil {
				t.bad.note(r.errorf("%w", err))
				return nil
			}
			return p.addFloats(r.id, x, y)
		})
		if err != nil {
			return err
		}
	}
	w.set.Skipped = t.bad.skipped()
	return t.bad.err(w.least())
}

// encode makes a sample of a row.
func (c *CSV) encode(t *table, cols *Columns, classes map[string]int, fields []string, target int, x []float32) (y float32, err error) {
	if err := cols.Encode(func(name string) string { return fields[t.places[name]] }, x); err != nil {
		return 0, err
	}
	v := strings.TrimSpace(fields[target])
	if c.TargetType == "number" {
		f, err := number(v)
		if err != nil {
			err = fmt.Errorf("column %s: %w", c.Target, err)
		}
		return float32(f), err
	}
	class, known := classes[v]
	if !known {
		return 0, fmt.Errorf("column %s: %q is no class (want one of %s)", c.Target, short(v), someOf(slices.Sorted(maps.Keys(classes))))
	}
	return float32(class), nil
}

// measure learns what columns hold from the training rows. A row with a field
// that is of no use counts in no column.
func (c *CSV) measure(ctx context.Context, t *table, at []int, names map[int]bool) (*Columns, error) {
	gauges := make([]gauge, len(at))
	for k := range gauges {
		gauges[k] = gauge{low: math.Inf(1), high: math.Inf(-1), names: map[string]bool{}}
	}
	values := make([]float64, len(at))
	err := t.each(ctx, t.train, func(_ row, fields []string) error {
		for k, i := range at {
			v, err := strings.TrimSpace(fields[i]), error(nil)
			if !names[i] {
				values[k], err = number(v)
			}
			if err != nil || v == "" {
				return nil // told when the row is encoded
			}
		}
		for k, i := range at {
			if !names[i] {
				gauges[k].number(values[k])
			} else if err := gauges[k].name(strings.TrimSpace(fields[i])); err != nil {
				return fmt.Errorf("column %s: %w", t.header[i], err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	cols := &Columns{}
	for k, i := range at {
		if gauges[k].n == 0 {
			return nil, errors.Join(fmt.Errorf("column %s: no row can be used", t.header[i]), t.bad.err(0))
		}
		cols.Columns = append(cols.Columns, gauges[k].column(t.header[i], c.Normalize, names[i]))
	}
	return cols, nil
}

// gauge learns what one column holds.
type gauge struct {
	n            int64
	sum, squares exactSum
	low, high    float64
	names        map[string]bool
}

func (g *gauge) number(v float64) {
	g.n++
	g.low, g.high = min(g.low, v), max(g.high, v)
	g.sum.add(v)
	square := float64(v * v)
	g.squares.add(square)
	g.squares.add(math.FMA(v, v, -square)) // what was rounded off
}

func (g *gauge) name(v string) error {
	g.n++
	g.names[v] = true
	if len(g.names) > maxNames {
		return fmt.Errorf("more than %d names (is it something to ignore?)", maxNames)
	}
	return nil
}

// column is what was learned. The scale of a column that is always the same is 1.
func (g *gauge) column(name, normalize string, isName bool) Column {
	col := Column{Name: name, Scale: 1}
	switch {
	case isName:
		col.Names = make([]string, 0, len(g.names))
		for n := range g.names {
			col.Names = append(col.Names, n)
		}
		slices.Sort(col.Names)
	case normalize == "minmax":
		col.Center, col.Scale = g.low, g.high-g.low
	case normalize == "standard":
		col.Center, col.Scale = g.moments()
	}
	if col.Scale == 0 {
		col.Scale = 1
	}
	return col
}

// moments returns mean and standard deviation (of the population), each rounded
// once, the deviation from the square root of a variance rounded once.
func (g *gauge) moments() (mean, deviation float64) {
	n := new(big.Rat).SetInt64(g.n)
	m := new(big.Rat).Quo(g.sum.rat(), n)
	v := new(big.Rat).Quo(g.squares.rat(), n)
	v.Sub(v, new(big.Rat).Mul(m, m))
	mean, _ = m.Float64()
	variance, _ := v.Float64()
	return mean, math.Sqrt(max(0, variance)) // squares below the smallest number are 0
}

// exactSum adds without rounding: the parts do not overlap, and their sum is the
// sum of all that was added (Shewchuk, "Adaptive precision floating-point
// arithmetic", 1997).
type exactSum struct{ parts []float64 }

func (s *exactSum) add(x float64) {
	kept := s.parts[:0]
	for _, p := range s.parts {
		if math.Abs(x) < math.Abs(p) {
			x, p = p, x
		}
		hi := x + p
		if lo := p - (hi - x); lo != 0 {
			kept = append(kept, lo)
		}
		x = hi
	}
	s.parts = append(kept, x)
}

func (s *exactSum) rat() *big.Rat {
	sum, part := new(big.Rat), new(big.Rat)
	for _, p := range s.parts {
		sum.Add(sum, part.SetFloat64(p))
	}
	return sum
}
