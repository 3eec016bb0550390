package dataset

// Prefetcher is a data set that can begin to bring in a sample before it is read.
type Prefetcher interface {
	Dataset
	// Prefetch says that sample i is read soon. It returns at once, and changes
	// nothing but how long that takes.
	Prefetch(i int)
}

// Prefetch tells d which samples are read next, in whatever order, where that is of
// use. What is brought in is held by the system's page cache alone, which drops it
// when memory is short: whoever asks bounds how much that is.
func Prefetch(d Dataset, which []int) {
	p, ok := d.(Prefetcher)
	if !ok {
		return
	}
	for _, i := range which {
		p.Prefetch(i)
	}
}

// Prefetch passes the word on.
func (s *slice) Prefetch(i int) {
	if p, ok := s.base.(Prefetcher); ok {
		p.Prefetch(s.lo + i)
	}
}

// Prefetch passes the word on.
func (o *oneHot) Prefetch(i int) {
	if p, ok := o.base.(Prefetcher); ok {
		p.Prefetch(i)
	}
}

// Prefetch has the system read the record.
func (d *packed) Prefetch(i int) { d.r.Prefetch(i) }
