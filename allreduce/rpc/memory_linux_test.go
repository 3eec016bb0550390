package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dlnode/dlnode/allreduce"
)

// socketPair is a unix connection, as its two ends have it.
func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

// greeted is what came of greeting one another.
type greeted struct {
	m        *memory
	why, err error
}

// greetings has two ends greet one another.
func greetings(t testing.TB, callerShares, calledShares bool) (caller, called greeted) {
	t.Helper()
	a, b := socketPair(t)
	done := make(chan greeted)
	go func() {
		m, why, err := answer(b, calledShares)
		done <- greeted{m, why, err}
	}()
	caller.m, caller.why, caller.err = call(a, callerShares)
	called = wait(t, "the answer", done)
	for _, g := range []greeted{caller, called} {
		if g.m != nil {
			g.m.take()
			t.Cleanup(g.m.free)
		}
	}
	return caller, called
}

// ends are the two ends of shared memory.
func ends(t testing.TB) (a, b *memory) {
	t.Helper()
	x, y := greetings(t, true, true)
	if x.m == nil || y.m == nil {
		t.Fatalf("nothing is shared: %+v, %+v", x, y)
	}
	return x.m, y.m
}

func TestMemoryIsSharedWhereBothEndsWantIt(t *testing.T) {
	for _, c := range []struct{ caller, called bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		x, y := greetings(t, c.caller, c.called)
		both := c.caller && c.called
		for i, g := range []greeted{x, y} {
			if g.err != nil || (g.m != nil) != both || (g.why == nil) != both {
				t.Errorf("%+v: end %d has %+v", c, i, g)
			}
		}
	}
}

// Many kernels end fallocate for any signal that comes meanwhile.
func TestASignalDoesNotKeepMemoryFromBeingTaken(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, stop := unix.Gettid(), make(chan struct{})
	var signals sync.WaitGroup
	signals.Go(func() {
		for !isClosed(stop) {
			_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) // which the runtime sends to preempt, too
		}
	})
	defer signals.Wait()
	defer close(stop)
	for range 200 {
		r, err := newRegion()
		if err != nil {
			t.Fatal(err)
		}
		r.close()
	}
}

func TestWhatIsPutIntoMemoryIsReadThere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	draw := rand.New(rand.NewPCG(seed, 0))
	a, b := ends(t)
	sizes := make([]int, 2000)
	for i := range sizes {
		if sizes[i] = 1 + draw.IntN(1<<draw.IntN(20)); i%50 == 0 {
			sizes[i] = mostShared
		}
	}
	payload := func(i int) []byte {
		p := make([]byte, sizes[i])
		for k := range min(len(p), 64) {
			p[k], p[len(p)-1-k] = byte(i+k), byte(i^k)
		}
		return p
	}
	places := make(chan [placeBytes]byte, len(sizes)) // no bound but the memory's
	failed := make(chan error, 1)
	go func() {
		defer close(places)
		for i := range sizes {
			place, ok, err := a.put(payload(i))
			if !ok {
				failed <- fmt.Errorf("payload %d: %v, %w", i, ok, err)
				return
			}
			places <- place
		}
	}()
	got := 0
	for place := range places {
		p, err := b.get(place[:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, payload(got)) {
			t.Fatalf("payload %d is spoiled", got)
		}
		b.done()
		got++
	}
	if got < len(sizes) {
		t.Fatal(<-failed)
	}
}

func TestPlacesThatAreNotTheNextOneAreRefused(t *testing.T) {
	a, b := ends(t)
	place, _, err := a.put(make([]byte, 1000))
	if err != nil {
		t.Fatal(err)
	}
	other := func(at, n uint64) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, at), n)
	}
	for want, p := range map[string][]byte{
		"15 bytes say":                    place[:15],
		"0 bytes say":                     nil,
		"a payload of 0 bytes":            other(0, 0),
		"a payload of 524289 bytes":       other(0, mostShared+1),
		"a payload of 18446744073709551":  other(0, 1<<64-1),
		"a payload at 64 of":              other(64, 1000),
		"a payload at 18446744073709551":  other(1<<64-64, 1000),
		"a payload at 1048576 of shared ": other(ringBytes, 1000),
	} {
		if _, err := b.get(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%x: %v, want %q", p, err, want)
		}
	}
	if _, err := b.get(place[:]); err != nil {
		t.Error(err)
	}
	b.done()
	if _, err := b.get(place[:]); err == nil {
		t.Error("read twice")
	}
}

func FuzzPlace(f *testing.F) {
	f.Add([]byte{}, uint64(0))
	f.Add(make([]byte, placeBytes), uint64(0))
	f.Add(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 1<<20), 1<<19), uint64(1<<20-64))
	f.Fuzz(func(t *testing.T, place []byte, taken uint64) {
		m := &memory{other: make([]byte, regionBytes), taken: taken &^ (align - 1)}
		if p, err := m.get(place); err == nil && (len(p) == 0 || len(p) > mostShared || m.ending-m.taken > 2*ringBytes) {
			t.Fatalf("%x gives %d bytes up to %d, after %d", place, len(p), m.ending, m.taken)
		}
	})
}

func TestACountThatCannotBeIsRefused(t *testing.T) {
	for _, read := range []uint64{0, mostShared - 1, 3*mostShared + 1, 1 << 63, 1<<64 - 1} {
		a, b := ends(t)
		half := make([]byte, mostShared)
		for range 2 {
			if _, ok, err := a.put(half); !ok {
				t.Fatal(err)
			}
		}
		word(b.own, readAt).Store(mostShared)
		if _, ok, err := a.put(half); !ok {
			t.Fatal(err)
		}
		word(b.own, readAt).Store(read)
		if _, ok, err := a.put(half); ok || err == nil || !strings.Contains(err.Error(), fmt.Sprint(read)) {
			t.Errorf("%d bytes read of %d: %v, %v", read, a.sent, ok, err)
		}
	}
}

func TestAWaitForRoomEndsWhenItIsInterruptedOrTheOtherEndIsGone(t *testing.T) {
	file := func(t *testing.T) int {
		fd, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	socket := func(t *testing.T) int {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(pair[1]) })
		return pair[0]
	}
	interrupt := func(a, _ *memory) { a.bell.interrupt() }
	for name, c := range map[string]struct {
		sent func(t *testing.T) int // for a bell, by an end that has it block; nil for a good one
		end  func(a, b *memory)
	}{
		"interrupted":           {nil, interrupt},
		"gone":                  {nil, func(_, b *memory) { b.free() }},
		"no bell":               {file, func(_, _ *memory) {}},
		"interrupted, blocking": {socket, interrupt},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := ends(t)
			if c.sent != nil {
				a.bell.f.Close()
				fd := c.sent(t)
				var err error
				if a.bell, err = newBell(fd); err != nil {
					t.Fatal(err)
				}
				if err := unix.SetNonblock(fd, false); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if _, ok, err := a.put(make([]byte, mostShared)); !ok {
					t.Fatal(err)
				}
			}
			ended := make(chan bool)
			go func() {
				_, ok, _ := a.put(make([]byte, 1))
				ended <- ok
			}()
			eventually(t, "it waits", func() bool { return word(a.own, wantedAt).Load() > 0 })
			c.end(a, b)
			if wait(t, "the end of the wait", ended) {
				t.Error("there was no room")
			}
		})
	}
}

// What comes with a greeting is looked at before it is mapped: memory that could shrink would kill whoever reads it.
func TestOnlyMemoryThatCannotShrinkIsMapped(t *testing.T) {
	file := func(size int64, seals int) int {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		if size > 0 && size < 1<<30 {
			if err := unix.Fallocate(fd, 0, 0, size); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	hollow, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(hollow)
	if err := unix.Ftruncate(hollow, regionBytes); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(hollow), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	disk, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(regionBytes); err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{
		"not sealed":        file(regionBytes, 0),
		"may shrink":        file(regionBytes, seals&^unix.F_SEAL_SHRINK),
		"may grow":          file(regionBytes, seals&^unix.F_SEAL_GROW),
		"may lose pages":    file(regionBytes, seals&^unix.F_SEAL_FUTURE_WRITE),
		"short":             file(regionBytes-4096, seals),
		"long":              file(regionBytes+4096, seals),
		"empty":             file(0, seals),
		"without its pages": hollow,
		"on disk":           int(disk.Fd()),
		"no file":           -1,
	} {
		if b, err := mapRegion(fd); err == nil {
			unmap(b)
			t.Errorf("mapped what is %s", name)
		}
	}
	good := file(regionBytes, seals)
	b, err := mapRegion(good)
	if err != nil {
		t.Fatal(err)
	}
	unmap(b)
	if b, err := unix.Mmap(good, 0, regionBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		unmap(b)
		t.Error("a peer could write to it")
	}
}

func TestAGreetingThatIsNoneIsRefusedAndItsFilesAreClosed(t *testing.T) {
	before := openFiles(t)
	for name, send := range map[string]func(c *net.UnixConn){
		"gRPC":           func(c *net.UnixConn) { _, _ = c.Write([]byte("PRI * HTTP/2.0\r\n")) },
		"silence":        func(c *net.UnixConn) { c.Close() },
		"half":           func(c *net.UnixConn) { _, _ = c.Write([]byte("dlno")); c.Close() },
		"version":        func(c *net.UnixConn) { _, _ = c.Write([]byte("dlnode\x00\x00")) },
		"files for none": func(c *net.UnixConn) { _ = say(c, false, 0) },
		"many files":     func(c *net.UnixConn) { _ = say(c, true, 0, 1, 2, 0, 1, 2, 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := socketPair(t)
			go send(a)
			m, _, err := answer(b, true)
			if m != nil || err == nil {
				t.Fatalf("%v, %v", m, err)
			}
			a.Close()
			b.Close()
		})
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d before", after, before)
	}
}

// The system drops files for which a process has no room: what goes through the socket does so all the same.
func TestWhoseFilesDoNotComeSharesNothing(t *testing.T) {
	before := openFiles(t)
	lacks := func(g greeted) {
		if g.m != nil || g.why == nil || g.err != nil {
			t.Errorf("%+v", g)
		}
	}
	for files := range 2 { // of a caller
		a, b := socketPair(t)
		if err := say(a, true, []int{0, 1}[:files]...); err != nil {
			t.Fatal(err)
		}
		m, why, err := answer(b, true)
		lacks(greeted{m, why, err})
		if yes, _, err := hear(a, 0); yes || err != nil {
			t.Errorf("the caller of %d files is told %v, %v", files, yes, err)
		}
		a.Close()
		b.Close()
	}
	a, b := socketPair(t)
	if err := say(b, true); err != nil { // to whatever the caller says
		t.Fatal(err)
	}
	m, why, err := call(a, true)
	lacks(greeted{m, why, err})
	if yes, fds, err := hear(b, 2); !yes || err != nil {
		t.Errorf("the caller said %v, %v", yes, err)
	} else {
		closeAll(fds)
	}
	if why, err := hearWhether(b); why == nil || err != nil {
		t.Errorf("a caller without the other end's memory says that it has it: %v, %v", why, err)
	}
	a.Close()
	b.Close()
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d before", after, before)
	}
}

// newSharingWorld makes a world of nodes that may share memory.
func newSharingWorld(t testing.TB, world int, local Transport, change func(*GroupConfig)) []*node {
	t.Helper()
	var nodes []*node
	for rank := range world {
		n := newNode(t, rank)
		n.server.Close()
		n.listener = listen(t)
		n.server = Serve(ServerConfig{Listener: n.listener, Local: local, GroupWait: time.Second})
		nodes = append(nodes, n)
	}
	for rank, n := range nodes {
		n.start(rank, nodes, func(c *GroupConfig) {
			c.Group.Config.SegmentBytes = 256 << 10
			if change != nil {
				change(c)
			}
		})
	}
	return nodes
}

func TestProgressTellsWhatALinkIs(t *testing.T) {
	for _, local := range []Transport{SharedMemory, UnixSocket, TCP} {
		nodes := newSharingWorld(t, 3, local, nil)
		up(t, nodes)
		for seq := range uint64(3) {
			reduce(t, nodes, seq+1, 300_000)
		}
		for rank, n := range nodes {
			for o, p := range n.group.Progress().Peers {
				if o != rank && p.Transport != local {
					t.Errorf("%v: the link of %d and %d is %v", local, rank, o, p.Transport)
				}
			}
		}
		if p := nodes[0].group.Progress(); p.BytesOut < 300_000*8/3*2 {
			t.Errorf("%v: %d bytes sent", local, p.BytesOut)
		}
	}
}

// openSharing opens a stream to n by hand, as a peer that shares memory.
func openSharing(t *testing.T, n *node) (ringStream, *memory) {
	t.Helper()
	l := newLink(linkConfig{addr: n.listener.addr(), timeout: time.Second, bulk: true, local: SharedMemory})
	t.Cleanup(l.close)
	s, err := openOn(t, l, "node-0", fence)
	if err != nil {
		t.Fatal(err)
	}
	m := infoOf(s.Context()).memory
	if m == nil || !m.take() {
		t.Fatal(infoOf(s.Context()).why)
	}
	t.Cleanup(m.free)
	return s, m
}

// sharer is a node of a world of two whose other one is played by the test.
func sharer(t *testing.T) *node {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	n := nodes[1]
	n.server.Close()
	n.listener = listen(t)
	n.server = Serve(ServerConfig{Listener: n.listener, GroupWait: time.Second})
	n.start(1, nodes, func(c *GroupConfig) { c.Linger, c.Group.Config.SegmentBytes = 50*time.Millisecond, 256<<10 })
	return n
}

func TestAFrameWithABadPlaceEndsTheGroupAndIsBlamed(t *testing.T) {
	share := allreduce.Frame{Fence: fence, Seq: 1, Kind: allreduce.Reduce, Algorithm: allreduce.Direct, Encoding: allreduce.Shared, Chunk: 1}
	for want, change := range map[string]func(f *allreduce.Frame){
		"rpc: a payload at 4096 of":       func(f *allreduce.Frame) { f.Payload[1] = 16 },
		"rpc: a payload of 524289 bytes":  func(f *allreduce.Frame) { binary.LittleEndian.PutUint64(f.Payload[8:], mostShared+1) },
		"rpc: 8 bytes say":                func(f *allreduce.Frame) { f.Payload = f.Payload[:8] },
		"allreduce: header frame of":      func(f *allreduce.Frame) { f.Kind = allreduce.Header },
		"allreduce: refused frame":        func(f *allreduce.Frame) { f.Payload = append(f.Payload, make([]byte, 1<<20)...) }, // a large one, as if its payload were here
		"allreduce: refused frame (view ": func(f *allreduce.Frame) { f.Fence[0]++ },
	} {
		t.Run(want, func(t *testing.T) {
			n := sharer(t)
			s, m := openSharing(t, n)
			place, ok, err := m.put(make([]byte, 64<<10))
			if !ok {
				t.Fatal(err)
			}
			f := share
			f.Payload = place[:]
			change(&f)
			if err := s.SendMsg(whole(f.Append(pad()))); err != nil {
				t.Fatal(err)
			}
			if d := wait(t, "Down", n.down); d.Blame != "node-0" || !strings.HasPrefix(d.Reason, "protocol: "+want) {
				t.Errorf("blames %q: %s", d.Blame, d.Reason)
			}
		})
	}
}

func TestAFrameInMemoryThatIsNotSharedEndsTheGroup(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[1].start(1, nodes, nil)
	s, err := openRaw(t, nodes[1], "node-0", fence)
	if err != nil {
		t.Fatal(err)
	}
	f := allreduce.Frame{Fence: fence, Seq: 1, Kind: allreduce.Reduce, Algorithm: allreduce.Direct, Encoding: allreduce.Shared, Payload: make([]byte, placeBytes)}
	if err := s.SendMsg(whole(f.Append(pad()))); err != nil {
		t.Fatal(err)
	}
	if d := wait(t, "Down", nodes[1].down); d.Blame != "node-0" || !strings.Contains(d.Reason, "is in shared memory, and there is none") {
		t.Errorf("blames %q: %s", d.Blame, d.Reason)
	}
}

// A peer that lives and reads no memory is as one that reads no socket: the send lasts, which Progress shows, and
// whoever watches may close.
func TestAPeerThatNeverReadsItsMemoryHoldsUpASendAndNothingElse(t *testing.T) {
	n := sharer(t)
	s, m := openSharing(t, n)
	n.group.Start(n.op(1, 1<<20))
	eventually(t, "the memory is full", func() bool { return word(m.other, wantedAt).Load() > 0 })
	eventually(t, "the send lasts", func() bool {
		since := n.group.Progress().Peers[0].SendingSince
		return !since.IsZero() && time.Since(since) > 20*time.Millisecond
	})
	closed := time.Now()
	n.group.Close(allreduce.Broken, "node-0", "no answer for 3 s")
	if d := wait(t, "Down", n.down); d.at.Sub(closed) > 250*time.Millisecond {
		t.Errorf("closed after %v", d.at.Sub(closed))
	}
	var f allreduce.Frame
	for f.Kind != allreduce.Closing { // the note comes all the same
		var r message
		if err := s.RecvMsg(&r); err != nil {
			t.Fatal(err)
		}
		var err error
		if f, _, err = allreduce.NextFrame(frames(r.buf.ReadOnlyData())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACountThatCannotBeEndsTheGroupAndIsBlamed(t *testing.T) {
	n := sharer(t)
	_, m := openSharing(t, n)
	word(m.own, readAt).Store(1 << 40)
	n.group.Start(n.op(1, 1<<20))
	if d := wait(t, "Down", n.down); d.Blame != "node-0" || !strings.Contains(d.Reason, "bytes of shared memory read") {
		t.Errorf("blames %q: %s", d.Blame, d.Reason)
	}
}

func TestWhatIsEncryptedIsNotShared(t *testing.T) {
	if newCredentials(nil, UnixSocket).(connCredentials).share || !newCredentials(nil, SharedMemory).(connCredentials).share {
		t.Error("memory is not shared where it is allowed")
	}
	if newCredentials(selfSigned(t), SharedMemory).(connCredentials).share {
		t.Error("what TLS would encrypt goes through memory")
	}
}

// openFiles counts the files of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

// mapped counts the regions that this process has mapped.
func mapped(t testing.TB) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	return bytes.Count(maps, []byte("/memfd:dlnode"))
}

func TestNoMemoryAndNoFileOutliveTheirGroup(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	for _, n := range nodes {
		n.server.Close()
		n.listener = listen(t)
		n.server = Serve(ServerConfig{Listener: n.listener, GroupWait: time.Second})
	}
	generations := 300
	if testing.Short() {
		generations = 30
	}
	files := 0
	for g := range generations {
		for rank, n := range nodes {
			n.start(rank, nodes, func(c *GroupConfig) {
				c.Group.Config.Fence[8], c.Group.Config.Fence[9] = byte(g), byte(g>>8)
				c.Group.Config.SegmentBytes = 256 << 10
			})
		}
		if g%3 > 0 { // every third ends as soon as it can
			up(t, nodes)
			eventually(t, "each end has mapped two regions, and no others", func() bool { return mapped(t) == 4 })
			reduce(t, nodes, 1, 30_000*(g%3-1))
		}
		nodes[g%2].group.Close(allreduce.Orderly, "", "the next one")
		for _, n := range nodes {
			n.group.Wait()
			<-n.down
		}
		if g == 10 {
			files = openFiles(t)
		}
	}
	eventually(t, "all memory is given back", func() bool { return mapped(t) == 0 })
	eventually(t, "all files are closed", func() bool { return openFiles(t) <= files })
}
