package pack

// Prefetch asks the system to read record i, which is wanted soon: disks answer many
// requests at a time better than one after the other. It is a hint: what becomes of
// it is seen when the record is read.
func (r *Reader) Prefetch(i int) { r.shelf.prefetch(i) }
