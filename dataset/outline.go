package dataset

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/dlnode/dlnode/dataset/pack"
)

// Outline tells so much of a data set that two which differ can be told apart in
// words. It is part of no fingerprint.
type Outline struct {
	Name        string
	Samples     int
	Input       []int
	Target      int
	Classes     int
	Weighted    bool
	Fingerprint [sha256.Size]byte
	Marks       *Marks `json:",omitempty"` // nil where the data lie in no pack
}

// Marks are checksums of the records of a pack, of equally many each.
type Marks struct {
	Encoding string
	PerBlock int      // records in a block of the pack
	Each     int      // blocks that a mark is of
	Sums     [][]byte // the first bytes of a SHA-256 of their checksums
}

const (
	maxMarks  = 1024
	markBytes = 8
)

// OutlineOf reads no sample.
func OutlineOf(d Dataset) Outline {
	d = unspread(d)
	info := d.Info()
	o := Outline{
		Name: info.Name, Samples: d.Len(), Input: info.Input, Target: info.Target, Classes: info.Classes,
		Weighted: Weights(d) != nil, Fingerprint: d.Fingerprint(),
	}
	if p, ok := d.(*packed); ok {
		o.Marks = marksOf(p)
	}
	return o
}

func marksOf(d *packed) *Marks {
	x := d.r.Index()
	m := &Marks{Encoding: string(d.Encoding), PerBlock: x.PerBlock, Each: (len(x.Blocks)-1)/maxMarks + 1}
	for all := range slices.Chunk(x.Blocks, m.Each) {
		h := sha256.New()
		for _, sum := range all {
			h.Write(sum[:])
		}
		m.Sums = append(m.Sums, h.Sum(nil)[:markBytes])
	}
	return m
}

// Differences tells in words in what two data sets differ that have different
// fingerprints, or are cut in two at different places.
func (o Outline) Differences(here, there string, other Outline) (diff []string) {
	tell := func(what string, a, b any) {
		if a, b := fmt.Sprint(a), fmt.Sprint(b); a != b {
			diff = append(diff, fmt.Sprintf("data: %s %s on %s, %s on %s", what, a, here, b, there))
		}
	}
	tell("name", o.Name, other.Name)
	tell("samples", o.Samples, other.Samples)
	tell("input shape", o.Input, other.Input)
	tell("target length", o.Target, other.Target)
	tell("classes", o.Classes, other.Classes)
	tell("weights of samples", o.Weighted, other.Weighted)
	if o.Fingerprint == other.Fingerprint {
		return diff
	}
	if lo, hi, ok := o.firstDifference(other); ok {
		return append(diff, fmt.Sprintf("data: the first difference is in records %d to %d", lo, hi))
	}
	return append(diff, fmt.Sprintf("data: content %x on %s, %x on %s", o.Fingerprint[:4], here, other.Fingerprint[:4], there))
}

// firstDifference returns the records of the first marks that differ, where there
// are comparable ones.
func (o Outline) firstDifference(other Outline) (lo, hi int, ok bool) {
	a, b := o.Marks, other.Marks
	if a == nil || b == nil || a.Encoding != b.Encoding || a.PerBlock != b.PerBlock || a.Each != b.Each || a.Each < 1 || a.PerBlock < 1 {
		return 0, 0, false
	}
	n := min(len(a.Sums), len(b.Sums))
	for i := range n {
		if !slices.Equal(a.Sums[i], b.Sums[i]) {
			each := a.Each * a.PerBlock
			return i * each, min((i+1)*each, max(o.Samples, other.Samples)) - 1, true
		}
	}
	return 0, 0, false
}

var _ pack.Source = (*Share)(nil)
