package rpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Both ends of a unix socket greet one another before anything else goes over it, the one that calls first. A greeting
// says whether memory comes with it, as a file descriptor:
//
//	caller   "dlnode", version, with 0 or 1; with 1: its region, and the other end of a bell
//	called   "dlnode", version, with 0 or 1; with 1, which only answers 1: its region
//
// A region is a memfd that can neither shrink nor grow, nor lose pages, nor be mapped for writing by anyone else, and has
// all of its pages: whoever reads it can't be killed by what its owner does or lacks.
const (
	greeting        = "dlnode"
	greetingVersion = 1
	greetingBytes   = len(greeting) + 2

	seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE
)

// region is memory of this process's own, and the file by which another one maps it.
type region struct {
	b  []byte
	fd int
}

// newRegion takes memory. An error says what the system refuses.
func newRegion() (r region, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	r.fd, err = unix.MemfdCreate("dlnode", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		r.fd, err = unix.MemfdCreate("dlnode", flags)
	}
	if err != nil {
		return r, fmt.Errorf("memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := unix.Ftruncate(r.fd, regionBytes); err != nil {
		return r, fmt.Errorf("ftruncate: %w", err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); { // any signal will do, those of the runtime among them
		err = unix.Fallocate(r.fd, 0, 0, regionBytes)
	}
	if err != nil {
		return r, fmt.Errorf("fallocate: %w", err)
	}
	if r.b, err = unix.Mmap(r.fd, 0, regionBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return r, fmt.Errorf("mmap: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(r.fd), unix.F_ADD_SEALS, seals); err != nil {
		return r, fmt.Errorf("sealing: %w", err)
	}
	return r, nil
}

// close gives memory and file back.
func (r region) close() {
	if r.b != nil {
		unmap(r.b)
	}
	unix.Close(r.fd)
}

// unmap gives memory back, which can't fail for what Mmap has given.
func unmap(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic("rpc: munmap: " + err.Error())
	}
}

// mapRegion maps what a peer has sent, if that is a region.
func mapRegion(fd int) ([]byte, error) {
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("no memory to be shared: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("fstat: %w", err)
	}
	if got&seals != seals || st.Size != regionBytes || st.Blocks*512 < regionBytes {
		return nil, fmt.Errorf("memory of %d bytes in %d blocks with seals %#x, %d bytes with %#x expected", st.Size, st.Blocks, got, regionBytes, seals)
	}
	b, err := unix.Mmap(fd, 0, regionBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return b, nil
}

// bell wakes the other end of a link: one of a pair of sockets, of which a byte means to look again. Who was called has
// whatever the caller has sent for one, and the caller may still change it.
type bell struct{ f *os.File }

// newBell makes a bell of a socket, which it owns.
func newBell(fd int) (bell, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // so that NewFile gives it to the runtime's poller
		unix.Close(fd)
		return bell{}, err
	}
	return bell{os.NewFile(uintptr(fd), "bell")}, nil
}

// wait returns when the other end has rung; false if it is gone, interrupt was called, or that is no bell.
func (b bell) wait() bool {
	raw, err := b.f.SyscallConn()
	if err != nil {
		return false
	}
	var rings [64]byte
	n, failed := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool { // it is the poller that waits, whatever the caller makes of the socket
		n, _, failed = unix.Recvfrom(int(fd), rings[:], unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return err == nil && failed == nil && n > 0
}

// ring wakes the other end. Where it can't, that end is gone or has rings to hear still.
func (b bell) ring() {
	if raw, err := b.f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), []byte{1}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) })
	}
}

// interrupt ends all waits, those to come as well.
func (b bell) interrupt() { _ = b.f.SetReadDeadline(time.Unix(1, 0)) }

// unmap gives back all that there is of a memory.
func (m *memory) unmap() {
	for _, b := range [...][]byte{m.own, m.other} {
		if b != nil {
			unmap(b)
		}
	}
	if m.bell.f != nil {
		m.bell.f.Close()
	}
}

var (
	errNotWanted = errors.New("not wanted")
	errDropped   = errors.New("its files did not come: this process may have no more")
)

// call greets whom this end has called. The memory is nil unless both ends share some, and why says what is missing. An
// error means that the connection is of no use.
func call(c *net.UnixConn, share bool) (m *memory, why, err error) {
	m, theirs, why := newMemory(share)
	if why != nil {
		if err = say(c, false); err == nil {
			_, _, err = hear(c, 0)
		}
		return nil, why, err
	}
	err = say(c, true, theirs...)
	closeAll(theirs)
	var fds []int
	var yes bool
	if err == nil {
		yes, fds, err = hear(c, 1)
	}
	defer closeAll(fds)
	switch {
	case err != nil:
	case !yes:
		why = errors.New("the other end has none")
	default:
		if why = errDropped; len(fds) > 0 {
			m.other, why = mapRegion(fds[0])
		}
		err = say(c, why == nil)
	}
	if why != nil || err != nil {
		m.unmap()
		return nil, why, err
	}
	return m, nil, nil
}

// newMemory makes a caller's memory, without the other end's region, and what goes to that end.
func newMemory(share bool) (m *memory, theirs []int, err error) {
	if !share {
		return nil, nil, errNotWanted
	}
	r, err := newRegion()
	if err != nil {
		return nil, nil, err
	}
	m = &memory{own: r.b}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		theirs = append(theirs, pair[1])
		m.bell, err = newBell(pair[0])
	}
	theirs = append([]int{r.fd}, theirs...)
	if err != nil {
		closeAll(theirs)
		m.unmap()
		return nil, nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	return m, theirs, nil
}

// answer greets whom this end was called by; see call.
func answer(c *net.UnixConn, share bool) (m *memory, why, err error) {
	yes, fds, err := hear(c, 2)
	switch {
	case err != nil:
		return nil, nil, err
	case !yes:
		return nil, errors.New("the caller has none"), say(c, false)
	case len(fds) == 0:
		return nil, errDropped, say(c, false)
	}
	m, own, why := takeMemory(fds[0], fds[1], share)
	unix.Close(fds[0])
	if why != nil {
		return nil, why, say(c, false)
	}
	err = say(c, true, own)
	unix.Close(own)
	if err == nil {
		why, err = hearWhether(c)
	}
	if why != nil || err != nil {
		m.unmap()
		return nil, why, err
	}
	return m, nil, nil
}

// takeMemory makes the memory of who was called, and the file of its region. It owns the bell.
func takeMemory(other, ring int, share bool) (*memory, int, error) {
	b, err := newBell(ring)
	if err != nil {
		return nil, 0, err
	}
	m := &memory{bell: b}
	if !share {
		m.unmap()
		return nil, 0, errNotWanted
	}
	var r region
	if m.other, err = mapRegion(other); err == nil {
		r, err = newRegion()
	}
	if err != nil {
		m.unmap()
		return nil, 0, err
	}
	m.own = r.b
	return m, r.fd, nil
}

// say writes a greeting.
func say(c *net.UnixConn, yes bool, fds ...int) error {
	b := append([]byte(greeting), greetingVersion, 0)
	if yes {
		b[greetingBytes-1] = 1
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix(b, rights, nil)
	return err
}

// hear reads a greeting and the files that come with it: as many as belong to a yes, or none. The system drops those
// for which this process has no room.
func hear(c *net.UnixConn, files int) (yes bool, fds []int, err error) {
	yes, fds, err = hearAny(c)
	if err == nil && (len(fds) > files || !yes && len(fds) > 0) {
		err = fmt.Errorf("rpc: a greeting with %d files", len(fds))
	}
	if err != nil || len(fds) < files {
		closeAll(fds)
		fds = nil
	}
	return yes, fds, err
}

// hearWhether reads the greeting that says whether the caller has mapped what it was sent.
func hearWhether(c *net.UnixConn) (why, err error) {
	yes, fds, err := hearAny(c)
	closeAll(fds)
	if !yes {
		why = errors.New("the caller could not map it")
	}
	return why, err
}

func hearAny(c *net.UnixConn) (yes bool, fds []int, err error) {
	b := make([]byte, greetingBytes)
	rights := make([]byte, unix.CmsgSpace(4*4))
	for at := 0; at < len(b); {
		n, nr, _, _, err := c.ReadMsgUnix(b[at:], rights)
		more, e := filesOf(rights[:nr])
		fds = append(fds, more...)
		if err == nil {
			err = e
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return false, fds, err
		}
		at += n
	}
	if string(b[:len(greeting)]) != greeting || b[len(greeting)] != greetingVersion || b[greetingBytes-1] > 1 {
		return false, fds, fmt.Errorf("rpc: greeted with %q", b)
	}
	return b[greetingBytes-1] == 1, fds, nil
}

// filesOf lists the files of control messages.
func filesOf(b []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
