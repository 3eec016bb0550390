package fpmode

// Bits of FPCR.
const (
	flush = 1 << 24
	down  = 1 << 23
)
