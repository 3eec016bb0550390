package view

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A proposal is the one message whose size grows with the cluster, and it goes
// to everybody. So it is packed: binary, deflated where that is worth the
// effort, once for all who get it; and who has the view before it gets only what
// changes. Nothing rests on the packing: a view that does not have the name that
// was told with it is not believed.
const (
	packedView   = 'V'
	packedChange = 'C'

	deflateFrom    = 2 << 10  // bytes; below it a packet is a packet
	maxPackedBytes = 32 << 20 // of 65,536 members with the longest names
)

// packView returns the wire form of a whole view.
func packView(v *View) []byte {
	b := append([]byte(nil), v.Trajectory[:]...)
	b = binary.AppendUvarint(b, v.Generation)
	b = appendNode(b, v.Proposer)
	b = binary.AppendUvarint(b, uint64(v.MinNodes))
	return deflate(appendMembers(b, v.Members))
}

// packChange returns the wire form of a change.
func packChange(c *Change) []byte {
	b := append(append([]byte(nil), c.Base[:]...), c.View[:]...)
	b = binary.AppendUvarint(b, c.Generation)
	b = appendNode(b, c.Proposer)
	b = binary.AppendUvarint(b, uint64(c.MinNodes))
	b = binary.AppendUvarint(b, uint64(len(c.Gone)))
	before := 0
	for _, rank := range c.Gone {
		b = binary.AppendUvarint(b, uint64(rank-before))
		before = rank
	}
	return deflate(appendMembers(b, c.Come))
}

func appendNode(b []byte, n Node) []byte {
	return binary.LittleEndian.AppendUint64(appendString(b, n.ID), n.Incarnation)
}

// appendMembers writes column by column: like stands by like, which deflates well.
func appendMembers(b []byte, ms []Member) []byte {
	b = binary.AppendUvarint(b, uint64(len(ms)))
	for _, text := range memberTexts {
		for i := range ms {
			b = appendString(b, *text(&ms[i]))
		}
	}
	for _, m := range ms {
		b = binary.LittleEndian.AppendUint64(b, m.Incarnation)
	}
	for _, m := range ms {
		b = binary.AppendUvarint(b, m.Entry)
	}
	return b
}

// memberTexts are the columns of names.
var memberTexts = [...]func(*Member) *string{
	func(m *Member) *string { return &m.ID },
	func(m *Member) *string { return &m.Addr },
	func(m *Member) *string { return &m.Zone },
}

// deflate puts a byte before b that tells whether it is compressed.
func deflate(b []byte) []byte {
	if len(b) < deflateFrom {
		return append([]byte{0}, b...)
	}
	out := bytes.NewBuffer([]byte{1})
	w, err := flate.NewWriter(out, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(b)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(fmt.Sprintf("view: a buffer cannot be written: %v", err))
	}
	return out.Bytes()
}

var errPacked = errors.New("a packed proposal ends early or says too much")

func inflate(b []byte) ([]byte, error) {
	switch {
	case len(b) == 0 || b[0] > 1:
		return nil, errPacked
	case b[0] == 0:
		return b[1:], nil
	}
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[1:])), maxPackedBytes+1))
	if err == nil && len(out) > maxPackedBytes {
		err = errPacked
	}
	return out, err
}

// unpackView reads what packView wrote. What it says is still to be checked.
func unpackView(b []byte) (*View, error) {
	b, err := inflate(b)
	if err != nil {
		return nil, err
	}
	r := reader{b: b}
	v := &View{Trajectory: r.hash(), Generation: r.number(), Proposer: r.node(), MinNodes: int(r.number())}
	v.Members = r.members()
	return v, r.end()
}

// unpackChange reads what packChange wrote.
func unpackChange(b []byte) (*Change, error) {
	b, err := inflate(b)
	if err != nil {
		return nil, err
	}
	r := reader{b: b}
	c := &Change{Base: r.hash(), View: r.hash(), Generation: r.number(), Proposer: r.node(), MinNodes: int(r.number())}
	rank := 0
	for range r.count(1) {
		rank += int(min(r.number(), maxMembers))
		c.Gone = append(c.Gone, rank)
	}
	c.Come = r.members()
	return c, r.end()
}

// reader takes values from the front of b; after the first that is not there,
// it gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return errPacked
	}
	return nil
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) hash() (h [32]byte) {
	copy(h[:], r.take(len(h)))
	return h
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(n)
	return v
}

func (r *reader) fixed() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) text() string {
	if b := r.take(1); b != nil {
		return string(r.take(int(b[0])))
	}
	return ""
}

func (r *reader) node() Node { return Node{r.text(), r.fixed()} }

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	n := r.number()
	if r.bad || n > maxMembers || int(n)*size > len(r.b) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) members() []Member {
	ms := make([]Member, r.count(len(memberTexts)+8+1+1))
	for _, text := range memberTexts {
		for i := range ms {
			*text(&ms[i]) = r.text()
		}
	}
	for i := range ms {
		ms[i].Incarnation = r.fixed()
	}
	for i := range ms {
		ms[i].Entry = r.number()
	}
	return ms
}

// Change is a proposal for whoever has the view that it starts from: a few
// hundred bytes where the whole view has a hundred thousand. One without
// members that go or come only reminds of View, which is its own Base.
type Change struct {
	Base       Name // the view that is changed
	View       Name // the view that comes of it
	Generation uint64
	Proposer   Node
	MinNodes   int
	Gone       []int    // ranks in Base of those that leave it, ascending
	Come       []Member // who is new in it, or changed

	made *View  // what comes of it; known to the proposer
	wire []byte // packed; known to the proposer
}

// changeOf returns what leads from base to v, or nil where nothing but the
// whole view does: a ring that was untangled has an order of its own.
func changeOf(base, v *View) *Change {
	if base.Trajectory != v.Trajectory || !slices.IsSortedFunc(v.Members, ringOrder) {
		return nil
	}
	c := &Change{Base: base.Name(), View: v.Name(), Generation: v.Generation, Proposer: v.Proposer, MinNodes: v.MinNodes, made: v}
	for rank, w := range base.Members {
		if r := v.Rank(w.Node()); r < 0 || v.Members[r] != w {
			c.Gone = append(c.Gone, rank)
		}
	}
	for _, w := range v.Members {
		if r := base.Rank(w.Node()); r < 0 || base.Members[r] != w {
			c.Come = append(c.Come, w)
		}
	}
	c.wire = packChange(c)
	return c
}

// reminder speaks of v to whoever has it.
func reminder(v *View) *Change {
	c := &Change{Base: v.Name(), View: v.Name(), Generation: v.Generation, Proposer: v.Proposer, MinNodes: v.MinNodes, made: v}
	c.wire = packChange(c)
	return c
}

// from returns the view that the change makes of base, or an error where it
// does not make the one it names.
func (c *Change) from(base *View) (*View, error) {
	if c.made != nil {
		return c.made, nil
	}
	v := &View{Trajectory: base.Trajectory, Generation: c.Generation, Proposer: c.Proposer, MinNodes: c.MinNodes}
	gone := c.Gone
	for rank, w := range base.Members {
		if len(gone) > 0 && gone[0] == rank {
			gone = gone[1:]
			continue
		}
		v.Members = append(v.Members, w)
	}
	v.Members = append(v.Members, c.Come...)
	slices.SortFunc(v.Members, ringOrder)
	if err := v.check(); err != nil {
		return nil, err
	}
	if len(gone) > 0 || v.Name() != c.View {
		return nil, fmt.Errorf("a change makes view %s, not %s", v.Name(), c.View)
	}
	return v, nil
}

// check refuses what no sound node says.
func (c *Change) check() error {
	if c.Generation > maxGeneration {
		return errGeneration
	}
	for _, m := range c.Come {
		if err := checkNames(m.ID, m.Addr, m.Zone); err != nil {
			return err
		}
	}
	return nil
}

// Equal tells whether two changes make the same of the same.
func (c *Change) Equal(d *Change) bool {
	if c == nil || d == nil {
		return c == d
	}
	return bytes.Equal(packChange(c), packChange(d))
}

// ringOrder is the order of a ring without bad links: zones together, seniors first.
func ringOrder(a, b Member) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), bySeniority(a, b)) }
