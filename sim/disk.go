package sim

import (
	"syscall"

	"github.com/dlnode/dlnode/checkpoint/memfs"
)

// storeDir is where checkpoints are on a simulated disk.
const storeDir = "checkpoints"

// disk is what outlives a process.
type disk struct {
	*memfs.Disk
	durable uint64 // greatest transition that was reported written
	rotten  bool   // something else than the product has changed it
	full    bool
	failing bool
	dieAt   int // file operations until the process dies in one; 0 for never
	how     death
}

// diskOf returns a node's disk, a shared one if the cluster has one.
func (c *Cluster) diskOf(id string) *disk {
	if c.opt.Faults.SharedDisk {
		id = "shared"
	}
	d := c.disks[id]
	if d == nil {
		d = &disk{Disk: memfs.NewDisk()}
		c.disks[id] = d
	}
	return d
}

// beforeIO fails an operation of a process if its disk is to fail.
func (l *life) beforeIO(op memfs.Op) error {
	d := l.disk
	if d.dieAt > 0 {
		if d.dieAt--; d.dieAt == 0 {
			return memfs.ErrKilled
		}
	}
	writes := op.Name != "open" && op.Name != "readdir"
	if d.failing && writes && l.c.chance(0.3) {
		return syscall.EIO
	}
	return nil
}

// dyingNow ends the process that has died in a file operation.
func (d *disk) dyingNow(l *life) bool {
	if d.how == "" || d.dieAt > 0 {
		return false
	}
	how := d.how
	d.how = ""
	l.logf("dies while it writes")
	l.kill(how)
	return true
}

// powerLoss leaves what is durable; luck decides about the rest.
func (d *disk) powerLoss(c *Cluster) {
	d.dieAt, d.how = 0, ""
	d.PowerLoss(func(n int) int { return c.rnd.IntN(n) })
}

// fill leaves little room, or none.
func (d *disk) fill(c *Cluster) {
	d.full = true
	d.SetCapacity(max(1, d.Used()+int64(c.rnd.IntN(6000))))
}

// rot flips one bit of one file.
func (d *disk) rot(c *Cluster) {
	var files []string
	for _, p := range d.Paths() {
		if b, err := d.ReadFile(p); err == nil && len(b) > 0 {
			files = append(files, p)
		}
	}
	if len(files) == 0 {
		return
	}
	path := files[c.rnd.IntN(len(files))]
	if c.chance(0.6) { // the newest checkpoint matters most, and tensors are most of it
		path = files[len(files)-1-c.rnd.IntN(min(2, len(files)))]
	}
	b, err := d.ReadFile(path)
	if err == nil {
		err = d.FlipBit(path, c.rnd.IntN(8*len(b)))
	}
	if err != nil {
		c.checks.fail("simulator", "%v", err)
	}
	d.rotten = true
	c.trace.logf(c.now, "disk", "a bit of %s flips", path)
}

// recover makes a disk sound again.
func (d *disk) recover() {
	d.full, d.failing, d.dieAt, d.how = false, false, 0, ""
	d.SetCapacity(0)
}
