// Package memfs is a file system in memory that fails on demand: the disk on
// which checkpoints are tested and simulated.
//
//	Process ──┐               ┌─ what programs see (live)
//	Process ──┼──► Disk ──────┤
//	Process ──┘               └─ what a loss of power leaves (durable)
//
// A Disk is what survives, a Process is one program that uses it; several may
// share a disk. The model is a pessimistic reading of POSIX: what was not synced
// is lost, kept or torn, each change on its own. Only a rename is atomic.
//
// Faults are placed, not drawn. Before is called ahead of each operation and may
// fail it, kill the process there, or let another process act first, so that a
// test can go through all operations of a program one by one. Whatever is a
// matter of luck is asked of a function that the caller gives.
package memfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/dlnode/dlnode/checkpoint"
)

// ErrKilled is what every operation of a dead process returns. Returned by
// Before, it kills the process.
var ErrKilled = errors.New("the process is dead")

// Disk is a disk. Create one with NewDisk. It is safe for concurrent use.
type Disk struct {
	mu        sync.Mutex
	root      *node
	processes []*Process
	capacity  int64
	loseSyncs bool
	serial    int // makes temporary names unique
}

// NewDisk returns an empty disk without limit.
func NewDisk() *Disk { return &Disk{root: newDir()} }

// SetCapacity limits the bytes in files; 0 is no limit. A write beyond it writes
// what fits and fails with syscall.ENOSPC.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// LoseSyncs makes a disk that lies: syncs succeed and do nothing.
func (d *Disk) LoseSyncs(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loseSyncs = on
}

// node is a file or a directory, with what is seen and what is durable.
type node struct {
	isDir bool

	data, synced []byte // of a file

	live    map[string]*node // of a directory
	durable map[string]*node
	changes []change // made to live since the last sync, in order

	holder *Process // who holds a temporary directory; nil if nobody
}

// change sets names of a directory at once; nil removes a name.
type change map[string]*node

func newDir() *node {
	return &node{isDir: true, live: map[string]*node{}, durable: map[string]*node{}}
}

func apply(entries map[string]*node, c change) {
	for name, n := range c {
		if n == nil {
			delete(entries, name)
		} else {
			entries[name] = n
		}
	}
}

func (n *node) change(c change) {
	apply(n.live, c)
	n.changes = append(n.changes, c)
}

// find returns the node at a path.
func (d *Disk) find(path string) (*node, error) {
	n := d.root
	for _, name := range split(path) {
		if !n.isDir {
			return nil, syscall.ENOTDIR
		}
		if n = n.live[name]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// parent returns the directory that holds, or would hold, a path, and the last
// name of the path.
func (d *Disk) parent(path string) (*node, string, error) {
	names := split(path)
	if len(names) == 0 {
		return nil, "", fs.ErrExist
	}
	n, err := d.find(filepath.Dir(filepath.Clean(path)))
	if err == nil && !n.isDir {
		err = syscall.ENOTDIR
	}
	return n, names[len(names)-1], err
}

func (d *Disk) dir(path string) (*node, error) {
	n, err := d.find(path)
	if err == nil && !n.isDir {
		return nil, syscall.ENOTDIR
	}
	return n, err
}

func split(path string) []string {
	path = filepath.Clean(path)
	if path == "." {
		return nil
	}
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}

// Used is the number of bytes in files.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used()
}

func (d *Disk) used() int64 {
	sum := int64(0)
	d.root.walk("", func(_ string, n *node) { sum += int64(len(n.data)) })
	return sum
}

// Paths returns the paths of all files and directories but the root, sorted.
func (d *Disk) Paths() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var paths []string
	d.root.walk("", func(path string, _ *node) { paths = append(paths, path) })
	return paths[1:]
}

// walk visits a node and what is below it, by name.
func (n *node) walk(path string, visit func(string, *node)) {
	visit(path, n)
	for _, name := range slices.Sorted(maps.Keys(n.live)) {
		n.live[name].walk(path+string(filepath.Separator)+name, visit)
	}
}

// ReadFile returns the contents of a file.
func (d *Disk) ReadFile(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err == nil && n.isDir {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return bytes.Clone(n.data), nil
}

// WriteFile replaces the contents of a file that exists, durably: how a test
// damages it.
func (d *Disk) WriteFile(path string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err == nil && n.isDir {
		err = syscall.EISDIR
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	n.data, n.synced = bytes.Clone(data), bytes.Clone(data)
	return nil
}

// FlipBit flips a bit of a file; bit counts from the lowest of the first byte.
func (d *Disk) FlipBit(path string, bit int) error {
	b, err := d.ReadFile(path)
	if err != nil {
		return err
	}
	if bit < 0 || bit >= 8*len(b) {
		return fmt.Errorf("memfs: %s has no bit %d", path, bit)
	}
	b[bit/8] ^= 1 << (bit % 8)
	return d.WriteFile(path, b)
}

// Truncate cuts a file to its first n bytes.
func (d *Disk) Truncate(path string, n int) error {
	b, err := d.ReadFile(path)
	if err != nil {
		return err
	}
	if n < 0 || n > len(b) {
		return fmt.Errorf("memfs: %s can't be cut to %d of its %d bytes", path, n, len(b))
	}
	return d.WriteFile(path, b[:n])
}

// Remove removes a file or a directory with what is in it, durably.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	parent, name, err := d.parent(path)
	if err == nil && parent.live[name] == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	delete(parent.live, name)
	delete(parent.durable, name)
	for _, c := range parent.changes {
		delete(c, name)
	}
	return nil
}

// PowerLoss ends all processes and leaves what is durable. What was not synced
// is a matter of luck: choose(n) is asked for a number below n, again and again,
// in an order that depends on the disk's contents alone. A nil choose is the
// worst luck: all of it is lost.
func (d *Disk) PowerLoss(choose func(n int) int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if choose == nil {
		choose = func(int) int { return 0 }
	}
	for _, p := range d.processes {
		p.dead = true
	}
	d.processes = nil
	d.root.powerLoss(choose)
}

func (n *node) powerLoss(choose func(int) int) {
	if !n.isDir {
		n.tear(choose)
		return
	}
	for _, c := range n.changes {
		if choose(2) == 1 {
			apply(n.durable, c)
		}
	}
	n.changes = nil
	n.live = maps.Clone(n.durable)
	for _, name := range slices.Sorted(maps.Keys(n.live)) {
		n.live[name].powerLoss(choose)
	}
}

// tear decides what is left of a file that was not synced: what was synced last,
// or the new contents up to some point, perhaps followed by zeros as if its
// length had reached the disk before its data.
func (n *node) tear(choose func(int) int) {
	if !bytes.Equal(n.data, n.synced) && choose(2) == 1 {
		n.synced = bytes.Clone(n.data[:choose(len(n.data)+1)])
		if choose(2) == 1 {
			clear(n.synced[choose(len(n.synced)+1):])
		}
	}
	n.data = bytes.Clone(n.synced)
}

// Op is an operation that a process is about to do.
type Op struct {
	N    int    // how many this process did before
	Name string // mkdir, mkdirtemp, abandoned, create, write, sync, close, open, rename, syncdir, readdir, remove, letgo
	Path string
}

// Process is one program that uses a disk. It implements checkpoint.FS.
type Process struct {
	// Before, if set, is called ahead of each operation. The error it returns is
	// what the operation fails with, undone but for a write, half of which is
	// done; ErrKilled ends the process too. Set it before the first operation.
	Before func(Op) error

	disk *Disk
	dead bool // guarded by disk.mu, as are ops and held
	ops  int
	held map[string]int // what is open, by path
}

var _ checkpoint.FS = (*Process)(nil)

// Process starts a process.
func (d *Disk) Process() *Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &Process{disk: d}
	d.processes = append(d.processes, p)
	return p
}

// Kill ends a process where it is: what it wrote stays, what it held is let go.
func (p *Process) Kill() {
	p.disk.mu.Lock()
	defer p.disk.mu.Unlock()
	p.dead = true
}

// Ops is the number of operations begun.
func (p *Process) Ops() int {
	p.disk.mu.Lock()
	defer p.disk.mu.Unlock()
	return p.ops
}

// Held lists the files and temporary directories that the process has opened
// and not closed, whether closing them succeeded or not.
func (p *Process) Held() []string {
	p.disk.mu.Lock()
	defer p.disk.mu.Unlock()
	return slices.Sorted(maps.Keys(p.held))
}

// handle is something that can be open.
type handle struct {
	p    *Process
	path string
	open bool
}

// take counts something as open, under the disk's lock.
func (h *handle) take() {
	if h.p.held == nil {
		h.p.held = map[string]int{}
	}
	h.open = true
	h.p.held[h.path]++
}

// letGo counts it as closed, once.
func (h *handle) letGo() {
	h.p.disk.mu.Lock()
	defer h.p.disk.mu.Unlock()
	if !h.open {
		return
	}
	h.open = false
	if h.p.held[h.path]--; h.p.held[h.path] == 0 {
		delete(h.p.held, h.path)
	}
}

// do performs an operation under the disk's lock, unless a fault comes first.
func (p *Process) do(name, path string, f func(d *Disk) error) error {
	err := p.begin(name, path)
	p.disk.mu.Lock()
	defer p.disk.mu.Unlock()
	if err == nil && p.dead {
		err = ErrKilled
	}
	if err == nil {
		err = f(p.disk)
	}
	if err != nil {
		return &fs.PathError{Op: name, Path: path, Err: err}
	}
	return nil
}

// begin counts an operation and asks Before, without the lock: Before may use
// the disk.
func (p *Process) begin(name, path string) error {
	p.disk.mu.Lock()
	op, dead := Op{N: p.ops, Name: name, Path: path}, p.dead
	p.ops++
	p.disk.mu.Unlock()
	if dead || p.Before == nil {
		return nil
	}
	err := p.Before(op)
	if errors.Is(err, ErrKilled) {
		p.Kill()
	}
	return err
}

// Mkdir implements checkpoint.FS.
func (p *Process) Mkdir(path string) error {
	return p.do("mkdir", path, func(d *Disk) error { return d.add(path, newDir()) })
}

// add enters a new node under a path.
func (d *Disk) add(path string, n *node) error {
	parent, name, err := d.parent(path)
	if err != nil {
		return err
	}
	if parent.live[name] != nil {
		return fs.ErrExist
	}
	parent.change(change{name: n})
	return nil
}

// MkdirTemp implements checkpoint.FS.
func (p *Process) MkdirTemp(parent, prefix string) (path string, hold io.Closer, err error) {
	h := &tempHold{handle{p: p}, newDir()}
	h.n.holder = p
	err = p.do("mkdirtemp", filepath.Join(parent, prefix), func(d *Disk) error {
		d.serial++
		h.path = filepath.Join(parent, fmt.Sprintf("%s%d", prefix, d.serial))
		if err := d.add(h.path, h.n); err != nil {
			return err
		}
		h.take()
		return nil
	})
	return h.path, h, err
}

// tempHold is the hold on a temporary directory.
type tempHold struct {
	handle
	n *node
}

// Close lets go.
func (h *tempHold) Close() error {
	h.letGo()
	return h.p.do("letgo", h.path, func(*Disk) error {
		h.n.holder = nil
		return nil
	})
}

// Abandoned implements checkpoint.FS.
func (p *Process) Abandoned(path string) (abandoned bool, err error) {
	err = p.do("abandoned", path, func(d *Disk) error {
		n, err := d.find(path)
		if err == nil {
			abandoned = n.holder == nil || n.holder.dead
		}
		return err
	})
	return abandoned, err
}

// Create implements checkpoint.FS.
func (p *Process) Create(path string) (checkpoint.File, error) {
	f := &file{handle{p: p, path: path}, &node{}}
	err := p.do("create", path, func(d *Disk) error {
		if err := d.add(path, f.n); err != nil {
			return err
		}
		f.take()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// file is a file that is being written.
type file struct {
	handle
	n *node
}

// Write appends. A write that fails does half of its work before.
func (f *file) Write(b []byte) (int, error) {
	fault := f.p.begin("write", f.path)
	f.p.disk.mu.Lock()
	defer f.p.disk.mu.Unlock()
	n := len(b)
	if fault != nil {
		n /= 2
	} else if f.p.dead {
		fault, n = ErrKilled, 0
	} else if room := f.p.disk.room(); int64(n) > room {
		fault, n = syscall.ENOSPC, int(room)
	}
	f.n.data = append(f.n.data, b[:n]...)
	if fault != nil {
		return n, &fs.PathError{Op: "write", Path: f.path, Err: fault}
	}
	return n, nil
}

// room is how many bytes still fit.
func (d *Disk) room() int64 {
	if d.capacity == 0 {
		return 1 << 62
	}
	return max(0, d.capacity-d.used())
}

// Sync makes the contents durable.
func (f *file) Sync() error {
	return f.p.do("sync", f.path, func(d *Disk) error {
		if !d.loseSyncs {
			f.n.synced = bytes.Clone(f.n.data)
		}
		return nil
	})
}

// Close does nothing but be an operation that can fail.
func (f *file) Close() error {
	f.letGo()
	return f.p.do("close", f.path, func(*Disk) error { return nil })
}

// Open implements checkpoint.FS. What it returns reads the contents of now.
func (p *Process) Open(path string) (r io.ReadCloser, size int64, err error) {
	err = p.do("open", path, func(d *Disk) error {
		n, err := d.find(path)
		if err == nil && n.isDir {
			err = syscall.EISDIR
		}
		if err == nil {
			o := &opened{handle{p: p, path: path}, bytes.NewReader(bytes.Clone(n.data))}
			o.take()
			r, size = o, int64(len(n.data))
		}
		return err
	})
	return r, size, err
}

// opened is a file that is being read.
type opened struct {
	handle
	io.Reader
}

// Close lets go. It does not fail.
func (o *opened) Close() error {
	o.letGo()
	return nil
}

// Rename implements checkpoint.FS.
func (p *Process) Rename(from, to string) error {
	return p.do("rename", from, func(d *Disk) error {
		parent, old, err := d.parent(from)
		if err != nil {
			return err
		}
		name := filepath.Base(to)
		switch {
		case filepath.Dir(from) != filepath.Dir(to):
			return syscall.EXDEV
		case parent.live[old] == nil:
			return fs.ErrNotExist
		case parent.live[name] != nil:
			return fs.ErrExist
		}
		parent.change(change{old: nil, name: parent.live[old]})
		return nil
	})
}

// SyncDir implements checkpoint.FS.
func (p *Process) SyncDir(path string) error {
	return p.do("syncdir", path, func(d *Disk) error {
		n, err := d.dir(path)
		if err == nil && !d.loseSyncs {
			n.durable, n.changes = maps.Clone(n.live), nil
		}
		return err
	})
}

// ReadDir implements checkpoint.FS.
func (p *Process) ReadDir(path string) (names []string, err error) {
	err = p.do("readdir", path, func(d *Disk) error {
		n, err := d.dir(path)
		if err == nil {
			names = slices.Sorted(maps.Keys(n.live))
		}
		return err
	})
	return names, err
}

// RemoveAll implements checkpoint.FS. Each file and directory that goes is an
// operation of its own, so that a process can die in the middle.
func (p *Process) RemoveAll(path string) error {
	names, err := p.ReadDir(path)
	if err == nil {
		for _, name := range names {
			if err := p.RemoveAll(filepath.Join(path, name)); err != nil {
				return err
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return p.do("remove", path, func(d *Disk) error { return d.unlink(path) })
}

// unlink removes a file or an empty directory, if it is there.
func (d *Disk) unlink(path string) error {
	parent, name, err := d.parent(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case parent.live[name] == nil:
		return nil
	case len(parent.live[name].live) > 0:
		return syscall.ENOTEMPTY
	}
	parent.change(change{name: nil})
	return nil
}
