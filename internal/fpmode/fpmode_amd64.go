package fpmode

// Bits of MXCSR.
const (
	flush = 1<<15 | 1<<6 // results, and operands
	down  = 1 << 13
)
