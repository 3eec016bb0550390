package pack

// Prefetch asks the system to read record i, which is wanted soon: disks answer many
// requests at a time better than one after the other. Of a block that was not touched
// yet nothing is asked for, since all of it is read then. It is a hint: what becomes
// of it is seen when the record is read.
func (r *Reader) Prefetch(i int) { r.shelf.prefetch(i) }
