package view

import (
	"encoding/binary"
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
	Propose *View   `json:"-"` // packed, behind the rest
	Change  *Change `json:"-"` // a proposal for whoever has the view before it; packed likewise
	Ask     *Ask
	Hold    *Hold
	Ack     *Ack
	Refuse  *Refuse
	Start   *Start
	Stop    *Stop
	Expel   *Expel `json:",omitempty"`
}

// Hello says no more than who is there: a node that waits to be taken in tells
// the coordinator, should gossip not have come around yet. One whose group has
// broken tells by whose loss: the coordinator may be half a ring away from it.
type Hello struct {
	View Name // whose group ended here, zero if none has
	Lost Node // who was lost then, zero if nobody was
}

// Ask answers a Change whose base the sender does not have: it wants the whole view.
type Ask struct{ View Name }

// Hold answers a proposal that is accepted but must wait for the end of a
// step: "I have it, I am coming".
type Hold struct{ View Name }

// Ack says that the sender's older group is gone, that its state is at a
// transition, which one and with what digest. It is sent again until a Start
// or a Refuse answers.
type Ack struct {
	View       Name
	Generation uint64
	Stand
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
	Donors     []int  // ranks whose state is the one to start from
	Recall     Recall // the latest that anybody knows of, which that state has behind it
}

// Stop ends the run on every member of a view: the replicas differ.
type Stop struct {
	View   Name
	Reason string
}

// MarshalJSON writes donors as runs of ranks: most often all have the same state.
func (s Start) MarshalJSON() ([]byte, error) {
	w := startOnWire{s.View, s.Transition, s.Digest, nil, s.Recall}
	for _, d := range s.Donors {
		if n := len(w.Donors); n > 0 && w.Donors[n-1][1]+1 == d {
			w.Donors[n-1][1] = d
		} else {
			w.Donors = append(w.Donors, [2]int{d, d})
		}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Start) UnmarshalJSON(b []byte) error {
	var w startOnWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*s = Start{w.View, w.Transition, w.Digest, nil, w.Recall}
	last := -1
	for _, run := range w.Donors {
		if run[0] <= last || run[1] < run[0] || run[1] >= maxMembers {
			return fmt.Errorf("a start with donors %v", w.Donors)
		}
		for last = run[0]; last < run[1]; last++ {
			s.Donors = append(s.Donors, last)
		}
		s.Donors = append(s.Donors, last)
	}
	return nil
}

// startOnWire is a Start with donors from rank to rank.
type startOnWire struct {
	View       Name
	Transition uint64
	Digest     [32]byte
	Donors     [][2]int
	Recall     Recall `json:",omitzero"`
}

// Encode returns the wire form: JSON, and for a proposal a letter and the length
// of the JSON before it and the packed proposal behind.
func (m Msg) Encode() []byte {
	head, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("view: a message cannot be encoded: %v", err))
	}
	switch {
	case m.Propose != nil:
		return join(packedView, head, m.Propose.packed())
	case m.Change != nil && m.Change.wire != nil:
		return join(packedChange, head, m.Change.wire)
	case m.Change != nil:
		return join(packedChange, head, packChange(m.Change))
	}
	return head
}

func join(kind byte, head, packed []byte) []byte {
	b := binary.AppendUvarint([]byte{kind}, uint64(len(head)))
	return append(append(b, head...), packed...)
}

// split takes apart what join put together.
func split(b []byte) (kind byte, head, packed []byte, err error) {
	if len(b) == 0 || b[0] != packedView && b[0] != packedChange {
		return 0, b, nil, nil
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n > uint64(len(b)-1-size) {
		return 0, nil, nil, errPacked
	}
	rest := b[1+size:]
	return b[0], rest[:n], rest[n:], nil
}

// DecodeMsg parses and checks what Encode wrote. It never keeps b.
func DecodeMsg(b []byte) (Msg, error) {
	m, err := decode(b)
	if err != nil {
		return Msg{}, fmt.Errorf("view: a message cannot be read: %w", err)
	}
	set := 0
	for _, is := range [...]bool{
		m.Hello != nil, m.Propose != nil, m.Change != nil, m.Ask != nil, m.Hold != nil,
		m.Ack != nil, m.Refuse != nil, m.Start != nil, m.Stop != nil, m.Expel != nil,
	} {
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

func decode(b []byte) (m Msg, err error) {
	kind, head, packed, err := split(b)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(head, &m); err != nil {
		return m, err
	}
	switch kind {
	case packedView:
		m.Propose, err = unpackView(packed)
	case packedChange:
		m.Change, err = unpackChange(packed)
	}
	return m, err
}

// Bounds of what others may say.
const (
	maxNameBytes  = 120       // of an id, an address, a zone: four of them fit into gossip
	maxMembers    = 1<<16 - 1 // what a ring can hold
	maxGeneration = 1 << 62   // so that one more is always possible
)

// check refuses what a sound node never says.
func (m Msg) check() error {
	if err := m.From.check(); err != nil {
		return err
	}
	switch {
	case m.Propose != nil:
		return m.Propose.check()
	case m.Change != nil:
		return m.Change.check()
	case m.Hello != nil && len(m.Hello.Lost.ID) > maxNameBytes:
		return fmt.Errorf("a lost node with an id of %d bytes", len(m.Hello.Lost.ID))
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
	for _, m := range v.Members {
		if err := checkNames(m.ID, m.Addr, m.Zone); err != nil {
			return err
		}
		if m.Entry > v.Generation {
			return fmt.Errorf("a view with %s of a later generation", m.ID)
		}
	}
	v.sealed()
	if len(v.seal.ranks) < len(v.Members) {
		return fmt.Errorf("a view of %d members, some of them twice", len(v.Members))
	}
	if v.Rank(v.Proposer) < 0 {
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
	Coordinator Node     // whom it takes for the coordinator
	Beat        uint64   // grows with each operation of the model that it computes, sample that it reads, frame that it sends, and while it waits for others
	Doing       string   `json:",omitempty"` // what it is at, in words, if that may take long
	Sent        []uint64 // by rank: frames for it given to the transport in the running group
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
		Sent    time.Time // by the machine's own clock
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
		Kind string // refused, waiting, link, expelled, fault
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
