package optim

// Update is one step of an Optimizer, cut into pieces that touch different
// elements. So it does not matter who does which of them, or when.
type Update struct {
	optimizer     Optimizer
	params, grads []float32
	slots         [][]float32
	rate          float64
	step          uint64
	factor        float32 // of the gradient, which is clipped; 1 if it is not
}

// piece is a part of the flat vectors.
type piece struct {
	span
	windows []Window // that are prepared, cut to the piece
	learned []span   // likewise
}

// pieceLen is how many elements a piece has, at most, of a rule that looks at each
// alone: some ten microseconds of work, and little enough for a cache.
const pieceLen = 1 << 15

// fewPieces is how many pieces a small model has: some can be done before the gradient
// of others is known, and they are not worth calling for help.
const fewPieces = 7

// whole is a rule that must see a tensor at once.
type whole interface{ whole() }

// cut makes the pieces.
func (o *Optimizer) cut() {
	if _, ok := o.rule.(whole); ok {
		for _, w := range o.windows {
			o.piece(w.Lo, w.Hi)
		}
		return
	}
	n := min(pieceLen, (o.params+fewPieces-1)/fewPieces)
	for lo := 0; lo < o.params; lo += n {
		o.piece(lo, min(lo+n, o.params))
	}
}

// piece appends elements [lo, hi) as a piece.
func (o *Optimizer) piece(lo, hi int) {
	p := piece{span: span{lo, hi}}
	for _, w := range o.windows {
		if w.Lo, w.Hi = max(w.Lo, lo), min(w.Hi, hi); w.Lo < w.Hi && w.prepared() {
			p.windows = append(p.windows, w)
		}
	}
	for _, s := range o.learned {
		if s.lo, s.hi = max(s.lo, lo), min(s.hi, hi); s.lo < s.hi {
			p.learned = append(p.learned, s)
		}
	}
	o.pieces = append(o.pieces, p)
}

// Len returns the number of pieces.
func (u *Update) Len() int { return len(u.optimizer.pieces) }

// Span returns the elements [lo, hi) that piece i reads and writes, in all vectors.
// Pieces lie end to end from 0.
func (u *Update) Span(i int) (lo, hi int) {
	p := &u.optimizer.pieces[i]
	return p.lo, p.hi
}

// Do does piece i. Each is to be done once.
func (u *Update) Do(i int) {
	p := &u.optimizer.pieces[i]
	if u.optimizer.clip == 0 {
		u.prepare(p)
	}
	for _, s := range p.learned {
		if u.factor != 1 {
			scale(s.of(u.grads), u.factor)
		}
		u.optimizer.rule.update(s, u.params, u.grads, u.slots, u.rate, u.step)
	}
}

// prepare does what windows are subject to before the rule.
func (u *Update) prepare(p *piece) {
	for _, w := range p.windows {
		w.prepare(u.params[w.Lo:w.Hi], u.grads[w.Lo:w.Hi])
	}
}

func scale(x []float32, factor float32) {
	for i, e := range x {
		x[i] = float32(e * factor)
	}
}
