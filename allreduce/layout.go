package allreduce

// layout cuts n elements into one chunk per rank and chunks into segments. Chunks differ by one
// element at most; all segments of a chunk but the last are full.
type layout struct {
	n       int // elements
	world   int // chunks
	segment int // elements of a full segment
}

// chunk returns the range of chunk c; it may be empty.
func (l layout) chunk(c int) (lo, hi int) {
	return bound(l.n, l.world, c), bound(l.n, l.world, c+1)
}

// Chunk returns which of n elements are chunk c in a world where each rank has one: elements [lo, hi).
// In most schedules their total is known first on rank c.
func Chunk(n, world, c int) (lo, hi int) { return layout{n: n, world: world}.chunk(c) }

// bound is where chunk c begins: the first n%world chunks are one element longer.
func bound(n, world, c int) int { return n/world*c + min(c, n%world) }

// segments returns how many segments chunk c has; none if it is empty.
func (l layout) segments(c int) int {
	lo, hi := l.chunk(c)
	return (hi - lo + l.segment - 1) / l.segment
}

// slice returns the range of segment s of chunk c.
func (l layout) slice(c, s int) (lo, hi int) {
	first, end := l.chunk(c)
	lo = first + s*l.segment
	return lo, min(lo+l.segment, end)
}
