package view

import (
	"encoding/json"
	"fmt"
	"time"
)

// Msg is what members say to one another about views. All of it may be lost,
// repeated or late: each message is sent again until it is answered, and what
// is out of date is refused or ignored. Exactly one of the pointers is set.
type Msg struct {
	From    Fact // the sender, so that whoever is spoken to also knows where to answer
	Hello   *Hello
	Propose *View
	Hold    *Hold
	Ack     *Ack
	Refuse  *Refuse
	Start   *Start
	Stop    *Stop
}

// Hello says no more than who is there: a node that waits to be taken in tells
// the coordinator, should gossip not have come around yet.
type Hello struct{}

// Hold answers a proposal that is accepted but must wait for the end of a
// step: "I have it, I am coming".
type Hold struct{ View Name }

// Ack says that the sender's older group is gone, that its state is at a
// transition, which one and with what digest. It is sent again until a Start
// or a Refuse answers.
type Ack struct {
	View       Name
	Generation uint64
	Transition uint64
	Digest     [32]byte
}

// Refuse answers a proposal that is not accepted, or an Ack for a view that
// is no longer proposed. It tells the newest view that the refuser knows.
type Refuse struct {
	View       Name   // what is refused
	Generation uint64 // the refuser's
	Member     bool   // whether the one who is refused is a member of the refuser's running view
	Reason     string
}

// Start makes a view run: all have acknowledged. Whoever is not at Transition
// with Digest copies the state from one of the donors first.
type Start struct {
	View       Name
	Transition uint64
	Digest     [32]byte
	Donors     []int // ranks whose state is the one to start from
}

// Stop ends the run on every member of a view: the replicas differ.
type Stop struct {
	View   Name
	Reason string
}

// Encode returns the wire form.
func (m Msg) Encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("view: a message cannot be encoded: %v", err))
	}
	return b
}

// DecodeMsg parses and checks what Encode wrote.
func DecodeMsg(b []byte) (Msg, error) {
	var m Msg
	if err := json.Unmarshal(b, &m); err != nil {
		return Msg{}, fmt.Errorf("view: a message cannot be read: %w", err)
	}
	set := 0
	for _, is := range [...]bool{m.Hello != nil, m.Propose != nil, m.Hold != nil, m.Ack != nil, m.Refuse != nil, m.Start != nil, m.Stop != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return Msg{}, fmt.Errorf("view: a message says %d things, want 1", set)
	}
	if err := m.check(); err != nil {
		return Msg{}, fmt.Errorf("view: a message of %q: %w", m.From.ID, err)
	}
	return m, nil
}

// Bounds of what others may say.
const (
	maxNameBytes  = 120     // of an id, an address, a zone: four of them fit into gossip
	maxMembers    = 1 << 16 // what a ring can hold
	maxGeneration = 1 << 62 // so that one more is always possible
)

// check refuses what a sound node never says.
func (m Msg) check() error {
	if err := m.From.check(); err != nil {
		return err
	}
	switch {
	case m.Propose != nil:
		return m.Propose.check()
	case m.Ack != nil && m.Ack.Generation > maxGeneration, m.Refuse != nil && m.Refuse.Generation > maxGeneration:
		return errGeneration
	case m.Start != nil:
		return m.Start.check()
	}
	return nil
}

var errGeneration = fmt.Errorf("a generation beyond %d", uint64(maxGeneration))

func (f Fact) check() error {
	if f.Generation > maxGeneration || f.Entry > maxGeneration {
		return errGeneration
	}
	return checkNames(f.ID, f.Addr, f.Zone)
}

func checkNames(id, addr, zone string) error {
	if n := len(id); n < 1 || n > maxNameBytes {
		return fmt.Errorf("a node id of %d bytes, want 1 to %d", n, maxNameBytes)
	}
	if len(addr) > maxNameBytes || len(zone) > maxNameBytes {
		return fmt.Errorf("an address of %d and a zone of %d bytes, want at most %d", len(addr), len(zone), maxNameBytes)
	}
	return nil
}

func (v *View) check() error {
	if v.Generation > maxGeneration || len(v.Members) < 1 || len(v.Members) > maxMembers {
		return fmt.Errorf("a view of generation %d with %d members", v.Generation, len(v.Members))
	}
	seen := make(map[Node]bool, len(v.Members))
	for _, m := range v.Members {
		if err := checkNames(m.ID, m.Addr, m.Zone); err != nil {
			return err
		}
		if seen[m.Node()] || m.Entry > v.Generation {
			return fmt.Errorf("a view with %s twice or of a later generation", m.ID)
		}
		seen[m.Node()] = true
	}
	if !seen[v.Proposer] {
		return fmt.Errorf("a view whose proposer %q is no member", v.Proposer.ID)
	}
	return nil
}

// check holds donors to be ranks in ascending order; how many ranks there are
// only the view knows.
func (s *Start) check() error {
	last := -1
	for _, d := range s.Donors {
		if d <= last {
			return fmt.Errorf("a start with donors %v", s.Donors)
		}
		last = d
	}
	if last < 0 {
		return fmt.Errorf("a start without donors")
	}
	return nil
}

// Pong is a node's answer to a ping: alive, and this is what I am doing. A
// goroutine that training cannot hold up sends it.
type Pong struct {
	Fact        Fact
	Running     Name // of the running view, zero if none
	Generation  uint64
	Coordinator Node   // whom it takes for the coordinator
	Beat        uint64 // grows with each microbatch it computes and each frame it sends
	Sent        uint64 // frames given to the transport in the running group
}

// Cause says why a group ended.
type Cause struct {
	Blame  Node   // who was lost, zero if nobody is to blame
	By     Node   // who noticed
	Reason string // "stream reset after 3 ms"
	Fatal  bool   // the whole run ends, for that reason, on every node
}

// Effect is something that a Machine wants done. Performing one has no result
// but later events.
type Effect interface{ effect() }

// The effects.
type (
	// Send delivers Msg to a node, at most once, without an answer; what is
	// known to have failed comes back as Undelivered.
	Send struct {
		To   Node
		Addr string
		Msg  Msg
	}
	// Ping asks a node whether it lives; the answer is Ponged or PingFailed.
	Ping struct {
		To      Node
		Addr    string
		Timeout time.Duration
	}
	// Boundary asks training to end the running group after the step in hand.
	Boundary struct{ Reason string }
	// Halt ends the running group at once: one of its members is lost.
	Halt struct{ Cause Cause }
	// Install starts a generation. Whoever is not at Start.Transition copies
	// the state from a donor first.
	Install struct {
		View  *View
		Rank  int
		Start Start
	}
	// Announce changes this node's fact in gossip.
	Announce struct{ Fact Fact }
	// Stranger reports a living node on another trajectory, once for each life.
	// Senior tells that it goes before us, so that it is we who do not belong.
	Stranger struct {
		Fact   Fact
		Senior bool
	}
	// Over reports that the run is finished elsewhere and needs nobody.
	Over struct{ Fact Fact }
	// Fail ends the run with an error on this node.
	Fail struct{ Err error }
	// Note is a line of the story for people.
	Note struct {
		Kind string // lost, resumed, refused, waiting, expelled, healed
		Node Node
		Text string
	}
)

func (Send) effect()     {}
func (Ping) effect()     {}
func (Boundary) effect() {}
func (Halt) effect()     {}
func (Install) effect()  {}
func (Announce) effect() {}
func (Stranger) effect() {}
func (Over) effect()     {}
func (Fail) effect()     {}
func (Note) effect()     {}
