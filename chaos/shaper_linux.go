package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dlnode/dlnode/internal/lives"
)

// shaper holds up and loses packets of a node, TCP and UDP alike, where the kernel has
// no netem. The node's namespace has a device whose far end is this program. While a
// fault lasts, a route leads what the node sends there; what is given back comes in by the
// same device and, by a rule for what does, goes out by the link.
//
//	node ─► route ─► shape ─► queue, dice ─► shape ─► rule ─► eth0
type shaper struct {
	file *os.File
	toll *toll
	wait sync.WaitGroup
}

const (
	shaperDevice = "shape"
	shaperTable  = "100"
	shaperMTU    = 1500
)

// newShaper makes the device in a namespace, and leads nothing through it yet.
func newShaper(ns string, seed uint64) (*shaper, error) {
	file, err := inNetns(ns, func() (*os.File, error) {
		if err := letForeign(); err != nil {
			return nil, err
		}
		return openTun(shaperDevice)
	})
	if err != nil {
		return nil, fmt.Errorf("packets of %s can't be led through this program: %w", ns, err)
	}
	s := &shaper{file: file, toll: newToll(seed)}
	if err := lives.IPBatch(ns, "link set "+shaperDevice+" up mtu "+fmt.Sprint(shaperMTU),
		"rule add iif "+shaperDevice+" lookup "+shaperTable, "route add "+lives.Subnet+" dev eth0 table "+shaperTable); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	queue := make(chan packet, 4096)
	s.wait.Go(func() { s.take(queue) })
	s.wait.Go(func() { s.give(queue) })
	return s, nil
}

// packet waits until it may go on.
type packet struct {
	due  time.Time
	data []byte
}

// take reads what the node sends.
func (s *shaper) take(queue chan<- packet) {
	defer close(queue)
	buf := make([]byte, 64<<10)
	for {
		n, err := s.file.Read(buf)
		if err != nil {
			return // closed
		}
		hold, lost := s.toll.pass()
		if lost {
			continue
		}
		select {
		case queue <- packet{time.Now().Add(hold), append([]byte(nil), buf[:n]...)}:
		default: // as a full queue of a router
		}
	}
}

// give sends it on, in order.
func (s *shaper) give(queue <-chan packet) {
	for p := range queue {
		time.Sleep(time.Until(p.due))
		if _, err := s.file.Write(p.data); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIO) {
			continue // the link may be down: the packet is lost, and TCP sends it again
		}
	}
}

// add adds a fault; lift takes it away and tells how many are left.
func (s *shaper) add(f Fault) (lift func() (left int)) { return s.toll.add(f) }

func (s *shaper) close() error {
	err := s.file.Close()
	s.wait.Wait()
	return err
}

// inNetns calls f by a thread in a namespace. The thread ends with it.
func inNetns[T any](ns string, f func() (T, error)) (value T, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: nobody else may get this thread
		var fd int
		if fd, err = unix.Open(filepath.Join("/var/run/netns", ns), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd) // only read
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
			value, err = f()
		}
	}()
	<-done
	return value, err
}

// letForeign has the namespace take packets from a device that have one of its own
// addresses as their source, and pass them on.
func letForeign() error {
	for name, value := range map[string]string{
		"ip_forward": "1", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0", "conf/all/accept_local": "1", "conf/default/accept_local": "1",
		"conf/all/send_redirects": "0", "conf/default/send_redirects": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// openTun makes a device of IP packets and returns its far end.
func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("a tun device: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}
