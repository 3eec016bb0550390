package packing

// Speeds are what was measured lately, in bytes a second, and so that they compare,
// of elements as they are before packing; 0 is what is not known.
type Speeds struct {
	Link   float64 // bytes that the link carries, packed or not, while it is busy
	Pack   float64 // bytes of elements packed
	Unpack float64 // bytes of elements unpacked and added, or stored
}

// Pays reports whether vectors should be packed that shrink to the given part of
// their bytes: when the link's time for what is saved is more than the processor's
// for packing and unpacking.
//
//	(1 - ratio) / Link  >  1/Pack + 1/Unpack
//
// Both ends of a link may decide on their own, since a packed frame says that it is
// one. Where packing overlaps with sending, the true gain is larger; but cores that
// pack do not compute, and on a link within one machine they do not send. As long as
// a speed is not known it counts as one that makes packing pay: it is to be measured,
// and a link is more often slow than a processor. Who stops packing learns no ratio
// any more, and should try again from time to time.
func Pays(s Speeds, ratio float64) bool {
	if !(ratio < 1) {
		return false
	}
	return !(s.Link > 0) || (1-ratio)/s.Link > inverse(s.Pack)+inverse(s.Unpack)
}

// inverse returns 1/speed, nothing for what is not known.
func inverse(speed float64) float64 {
	if !(speed > 0) {
		return 0
	}
	return 1 / speed
}
