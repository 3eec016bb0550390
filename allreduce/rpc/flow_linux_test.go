package rpc

import (
	"io"
	"net"
	"testing"
)

// A link that looked fast while nothing else went over it is as fast as it turns out to be.
func TestALinkIsAsFastAsWhatGoesOverIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	read := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, c)
			c.Close()
		}
		read <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 16<<20)); err != nil {
		t.Fatal(err)
	}
	rate := flowOf(c)
	if rate < 1e6 {
		t.Errorf("16 MiB went over loopback at %.0f bytes a second", rate)
	}
	g, k := &Group{}, &packer{frames: 1, speed: rate / 4, ratio: 0.6}
	g.cfg.Addrs = []string{"10.0.0.1:7000", "10.0.0.2:7000"}
	p := &peer{rank: 1, conn: c}
	p.prober.link.Beta = 1 // a MiB in a nanosecond, it seemed
	if g.packs(p, k) {
		t.Error("packed at a quarter of the speed of the link")
	}
	if k.speed = 100 * rate; !g.packs(p, k) {
		t.Error("not packed, with packing a hundred times as fast as the link")
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	c.Close()
	if rate := flowOf(c); rate != 0 {
		t.Errorf("a closed connection carries %.0f bytes a second", rate)
	}
}
