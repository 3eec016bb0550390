package supervise

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Policy says when the dead are started again, and how long the leaving may
// take. Zero durations have defaults.
type Policy struct {
	// MaxRestarts is how often a node is started again in all; 0 is never.
	MaxRestarts int
	// Backoff is the wait before the first restart; each further one waits
	// twice as long, up to MaxBackoff. Defaults 250 ms and 10 s.
	Backoff, MaxBackoff time.Duration
	// Healthy is how long a node must have run for the back-off to begin anew.
	// Default 30 s.
	Healthy time.Duration
	// LeaveGrace is the time between SIGTERM and SIGKILL. Default 30 s.
	LeaveGrace time.Duration
	// Hopeless lists exit statuses that a restart would only meet again, such
	// as that of a bad job file.
	Hopeless []int
}

func (p Policy) withDefaults() Policy {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&p.Backoff, 250*time.Millisecond)
	set(&p.MaxBackoff, 10*time.Second)
	set(&p.Healthy, 30*time.Second)
	set(&p.LeaveGrace, 30*time.Second)
	return p
}

// Exit is how a process ended.
type Exit struct {
	Status int    // its exit status, where it ended by itself
	Signal string // what killed it, such as "killed"; else ""
	Err    error  // why it never ran; else nil
}

// OK reports the end of a process that has done what it should.
func (e Exit) OK() bool { return e == Exit{} }

func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return "could not be started: " + e.Err.Error()
	case e.Signal != "":
		return "ended by signal: " + e.Signal
	}
	return fmt.Sprintf("exited with status %d", e.Status)
}

// Kind is a sort of event.
type Kind int

// What happens to a node.
const (
	Started  Kind = iota // PID and Attempt tell of the process
	Exited               // Exit tells how, Outcome what that makes of the node
	Leaving              // it was asked to leave
	Killing              // it did not leave in time, or was not to be waited for
	Troubled             // Err tells what could not be done to it
)

// Outcome is where a node is in its life.
type Outcome int

// A node is at work or at one of its three ends.
const (
	AtWork   Outcome = iota // running, or about to be started again
	Finished                // exited with status 0: the job is done
	Left                    // went because it was told to
	Lost                    // died, and is not started again
)

func (o Outcome) String() string {
	return [...]string{"at work", "finished", "left", "lost"}[o]
}

// Event is something that happened to a node.
type Event struct {
	Kind    Kind
	ID      string
	PID     int           // of its process
	Attempt int           // which start this is, from 1
	Exit    Exit          // of Exited
	Outcome Outcome       // of Exited
	Wait    time.Duration // of Exited and AtWork: until it is started again
	Reason  string        // of Exited and Lost: why it stays dead
	Err     error         // of Troubled
}

// String is a line for people.
func (e Event) String() string {
	switch e.Kind {
	case Started:
		if e.Attempt > 1 {
			return fmt.Sprintf("%s started again as process %d (start %d)", e.ID, e.PID, e.Attempt)
		}
		return fmt.Sprintf("%s started as process %d", e.ID, e.PID)
	case Leaving:
		return e.ID + " was asked to leave"
	case Killing:
		return e.ID + " is killed"
	case Troubled:
		return fmt.Sprintf("%s: %v", e.ID, e.Err)
	}
	switch e.Outcome {
	case AtWork:
		return fmt.Sprintf("%s %v; to be started again in %v", e.ID, e.Exit, e.Wait)
	case Lost:
		return fmt.Sprintf("%s %v; not started again: %s", e.ID, e.Exit, e.Reason)
	}
	return fmt.Sprintf("%s %v: %s", e.ID, e.Exit, e.Outcome)
}

// machine decides what is done about the nodes. Time comes in as an argument,
// what is to be done comes out of take.
type machine struct {
	policy   Policy
	nodes    []*node // in the order they were added
	effects  []effect
	finished bool // a node ended with status 0, so the job is done
	asked    int  // how often all nodes were asked to go
}

// node is one id through all its processes.
type node struct {
	id       string
	outcome  Outcome
	starts   int // processes so far
	pid      int // of the newest
	alive    bool
	since    time.Time // when the newest was started
	streak   int       // deaths without a healthy life between them
	again    time.Time // when to start it again, if it is at work and not alive
	leaving  bool      // it was asked to, and is not started again
	deadline time.Time // when its leaving ends in a kill; zero for never
	last     Exit      // of the newest process that ended
}

type verb int

const (
	start verb = iota
	terminate
	kill
	tell
)

// effect is something for the driver to do.
type effect struct {
	verb    verb
	id      string
	attempt int   // of start
	event   Event // of tell
}

func newMachine(p Policy) *machine { return &machine{policy: p.withDefaults()} }

// take hands over the effects that have gathered.
func (m *machine) take() []effect {
	e := m.effects
	m.effects = nil
	return e
}

func (m *machine) do(v verb, n *node) {
	m.effects = append(m.effects, effect{verb: v, id: n.id, attempt: n.starts})
}

func (m *machine) tell(e Event) {
	m.effects = append(m.effects, effect{verb: tell, id: e.ID, event: e})
}

func (m *machine) node(id string) *node {
	i := slices.IndexFunc(m.nodes, func(n *node) bool { return n.id == id })
	if i < 0 {
		panic("supervise: no node " + id)
	}
	return m.nodes[i]
}

// add takes a node in. Once all are asked to go, it goes without a start.
func (m *machine) add(now time.Time, id string) {
	n := &node{id: id}
	m.nodes = append(m.nodes, n)
	if m.asked > 0 {
		n.outcome = Left
		return
	}
	m.start(now, n)
}

func (m *machine) start(now time.Time, n *node) {
	n.starts++
	n.alive, n.since, n.again = true, now, time.Time{}
	m.do(start, n)
}

// started notes that the newest process of a node runs.
func (m *machine) started(id string, pid int) {
	n := m.node(id)
	n.pid = pid
	m.tell(Event{Kind: Started, ID: id, PID: pid, Attempt: n.starts})
}

// trouble notes that something could not be done to a node.
func (m *machine) trouble(id string, err error) {
	m.tell(Event{Kind: Troubled, ID: id, PID: m.node(id).pid, Err: err})
}

// exited decides what the end of a process makes of its node.
func (m *machine) exited(now time.Time, id string, exit Exit) {
	n := m.node(id)
	n.alive, n.last, n.deadline = false, exit, time.Time{}
	e := Event{Kind: Exited, ID: id, PID: n.pid, Attempt: n.starts, Exit: exit}
	switch reason := m.whyNot(n, exit); {
	case n.leaving:
		n.outcome = Left
	case exit.OK():
		n.outcome = Finished
	case reason != "":
		n.outcome, e.Reason = Lost, reason
	default:
		e.Wait = m.backoff(now, n)
		n.again = now.Add(e.Wait)
	}
	e.Outcome = n.outcome
	m.tell(e)
	if n.outcome == Finished {
		m.finish()
	}
}

// whyNot says why a dead node is not started again, "" if it is.
func (m *machine) whyNot(n *node, exit Exit) string {
	switch {
	case m.finished:
		return "the job is done"
	case exit.Err == nil && exit.Signal == "" && slices.Contains(m.policy.Hopeless, exit.Status):
		return "it would end the same way"
	case m.policy.MaxRestarts == 0:
		return "restarts are off"
	case n.starts > m.policy.MaxRestarts:
		return fmt.Sprintf("it had all of its %d restarts", m.policy.MaxRestarts)
	}
	return ""
}

// backoff is how long a node that died now has to wait.
func (m *machine) backoff(now time.Time, n *node) time.Duration {
	if now.Sub(n.since) >= m.policy.Healthy {
		n.streak = 0
	}
	wait := m.policy.Backoff
	for range n.streak {
		wait = min(2*wait, m.policy.MaxBackoff)
	}
	n.streak++
	return wait
}

// finish calls off the restarts that are still to come.
func (m *machine) finish() {
	m.finished = true
	for _, n := range m.nodes {
		if n.outcome == AtWork && !n.alive {
			n.outcome = Lost
			m.tell(Event{Kind: Exited, ID: n.id, PID: n.pid, Attempt: n.starts, Exit: n.last, Outcome: Lost, Reason: "the job is done"})
		}
	}
}

// leave asks one node to go in order.
func (m *machine) leave(now time.Time, id string) {
	n := m.node(id)
	if n.outcome != AtWork || n.leaving {
		return
	}
	n.leaving = true
	if !n.alive {
		n.outcome = Left
		return
	}
	n.deadline = now.Add(m.policy.LeaveGrace)
	m.do(terminate, n)
	m.tell(Event{Kind: Leaving, ID: id, PID: n.pid})
}

// interrupt asks all nodes to go in order, and kills them the second time.
func (m *machine) interrupt(now time.Time) {
	if m.asked++; m.asked > 1 {
		m.killAll()
		return
	}
	for _, n := range m.nodes {
		m.leave(now, n.id)
	}
}

// killAll ends everything without waiting.
func (m *machine) killAll() {
	m.asked = max(m.asked, 1)
	for _, n := range m.nodes {
		switch {
		case n.alive:
			m.kill(n)
		case n.outcome == AtWork:
			n.outcome = Left
		}
	}
}

func (m *machine) kill(n *node) {
	n.leaving, n.deadline = true, time.Time{}
	m.do(kill, n)
	m.tell(Event{Kind: Killing, ID: n.id, PID: n.pid})
}

// tick does what has become due.
func (m *machine) tick(now time.Time) {
	for _, n := range m.nodes {
		switch at, ok := n.due(); {
		case !ok || now.Before(at):
		case n.alive:
			m.kill(n)
		default:
			m.start(now, n)
		}
	}
}

// due is when something is to be done about a node: a kill of one that lives,
// a start of one that does not.
func (n *node) due() (time.Time, bool) {
	switch {
	case n.alive:
		return n.deadline, !n.deadline.IsZero()
	default:
		return n.again, n.outcome == AtWork
	}
}

// next is when tick has something to do; ok is false for never.
func (m *machine) next() (at time.Time, ok bool) {
	for _, n := range m.nodes {
		if t, due := n.due(); due && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
}

// over reports that all nodes have come to their end.
func (m *machine) over() bool {
	return !slices.ContainsFunc(m.nodes, func(n *node) bool { return n.outcome == AtWork })
}

// Report is what became of a node.
type Report struct {
	ID      string
	Outcome Outcome
	Starts  int    // how many processes it had
	Last    Exit   // how the last of them ended
	Log     string // path of its log
}

// Result is what became of all nodes, in the order they were added.
type Result struct {
	Nodes       []Report
	Interrupted bool // they were asked to leave, or killed
}

func (m *machine) result(logDir string) Result {
	r := Result{Interrupted: m.asked > 0}
	for _, n := range m.nodes {
		r.Nodes = append(r.Nodes, Report{n.id, n.outcome, n.starts, n.last, filepath.Join(logDir, n.id+".log")})
	}
	return r
}

// Err is nil if the job is done, since a node that was lost on the way does not
// matter then, or if all nodes left in order. Else it tells how each one ended
// that did not, and where its log is.
func (r Result) Err() error {
	var bad []string
	for _, n := range r.Nodes {
		switch {
		case n.Outcome == Finished:
			return nil
		case n.Outcome == Lost || !n.Last.OK():
			bad = append(bad, fmt.Sprintf("%s %v (log: %s)", n.ID, n.Last, n.Log))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("no node finished: %s", strings.Join(bad, "; "))
}
