package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/train"
)

// Story makes one story out of what all nodes tell. Each of them sees the same
// things happen, so:
//
//   - progress is one node's, the reporter's; when it dies, falls silent or
//     drops out of the view, another takes over;
//   - an event is told once, by whoever is first; it is the same event if kind,
//     generation and node are the same. Some happen to one node alone: these get
//     its name;
//   - a generation's opening line says why there is a new one. "generation 4: 4
//     nodes start with step 812", which is all that a newcomer knows, waits a
//     moment for a better one, unless it is the first of all.
//
// It is a pure machine: time is an argument, and what to show comes out of Take.
type Story struct {
	nodes    map[string]*teller
	reporter string
	last     *train.Progress // shown
	told     map[eventKey]bool
	opened   map[uint64]bool // generations whose opening line was shown
	held     *train.Event    // an opening line that waits
	heldAt   time.Time
	leaving  bool // it was told that the nodes leave
	out      []Telling
}

// Telling is one thing to show: a text, or where the run is.
type Telling struct {
	Text     string
	Progress *train.Progress
}

// teller is what is known of a node's newest process.
type teller struct {
	alive  bool
	killed bool // on purpose, and said so
	heard  time.Time
	world  int // of the view that it last told to be in
	result *train.Result
}

// eventKey says which events are the same, told by different nodes. Outside a
// generation, and for what happens to one node alone, only the words tell two of
// them apart.
type eventKey struct {
	kind       string
	generation uint64
	node       string
	step       uint64
	text       string
}

const (
	// silence of the reporter, until another node that is heard takes over
	silence = 1500 * time.Millisecond
	// patience of a vague opening line with those who know more
	patience = 300 * time.Millisecond
)

// NewStory returns the story of nobody yet.
func NewStory() *Story {
	return &Story{nodes: map[string]*teller{}, told: map[eventKey]bool{}, opened: map[uint64]bool{}}
}

// Take returns what is to be shown since the last call, in order.
func (s *Story) Take() []Telling {
	out := s.out
	s.out = nil
	return out
}

// Say shows a text of the fleet's own.
func (s *Story) Say(format string, args ...any) {
	s.out = append(s.out, Telling{Text: fmt.Sprintf(format, args...)})
}

// Result is what a node's newest process said at its end, or nil.
func (s *Story) Result(id string) *train.Result {
	if n := s.nodes[id]; n != nil {
		return n.result
	}
	return nil
}

// Killed notes that a node is killed on purpose; its end is no news.
func (s *Story) Killed(id string) { s.node(id).killed = true }

func (s *Story) node(id string) *teller {
	if s.nodes[id] == nil {
		s.nodes[id] = &teller{}
	}
	return s.nodes[id]
}

// Line takes a line that a node wrote to its standard output.
func (s *Story) Line(now time.Time, id string, line []byte) (l train.Line) {
	if err := json.Unmarshal(line, &l); err != nil {
		s.Say("%s: %s", id, line)
		return train.Line{}
	}
	n := s.node(id)
	n.heard = now
	switch {
	case l.Progress != nil:
		n.world = l.Progress.World
		s.progress(now, id, l.Progress)
	case l.Event != nil:
		s.event(now, id, *l.Event)
	case l.Result != nil:
		n.result = l.Result
	}
	return l
}

// progress is shown if it is the reporter's, or of its successor.
func (s *Story) progress(now time.Time, id string, p *train.Progress) {
	if id != s.reporter && s.reports(now) && (s.nodes[s.reporter].world > 0 || p.World == 0) {
		return
	}
	s.reporter = id
	if s.last != nil && endsEpoch(s.last, p) {
		end := *p
		end.Epoch = s.last.Epoch
		s.out = append(s.out, Telling{Progress: &end})
	}
	s.last = p
	s.out = append(s.out, Telling{Progress: p})
}

// endsEpoch tells whether progress stands between the epoch that was shown and
// the next: its values, validation included, are those of the former.
func endsEpoch(shown, p *train.Progress) bool {
	return p.Epoch == shown.Epoch+1 && p.Step*uint64(p.Epochs) == p.Steps*uint64(shown.Epoch)
}

// reports tells whether there is a reporter that is heard.
func (s *Story) reports(now time.Time) bool {
	n := s.nodes[s.reporter]
	return n != nil && n.alive && now.Sub(n.heard) < silence
}

// event shows an event of the nodes, once.
func (s *Story) event(now time.Time, id string, e train.Event) {
	if slices.Contains(personal, e.Kind) {
		e.Node, e.Text = id, id+": "+e.Text
	}
	key := keyOf(e)
	if s.told[key] || e.Kind == refused {
		return
	}
	s.told[key] = true
	switch {
	case !slices.Contains(openings, e.Kind):
		s.Say("%s", e.Text)
	case vague(e) && len(s.opened) > 0:
		s.hold(now, e)
	default:
		s.open(e)
	}
}

func keyOf(e train.Event) eventKey {
	key := eventKey{kind: e.Kind, generation: e.Generation, node: e.Node}
	switch {
	case slices.Contains(personal, e.Kind):
		key.text = e.Text
	case e.Kind == "waiting": // all of them for the same thing
		key.node, key.step, key.text = "", e.Step, e.Text
	case e.Generation == 0:
		key.step, key.text = e.Step, e.Text
	}
	return key
}

// personal are the kinds of events that happen to one node alone, and that it
// tells without its name.
var personal = []string{"checkpoint failed", "copied", "copy", "damaged", "expelled", "resume", "stranger", "unfit", "unreachable"}

// refused is the kind of events that belong to the protocol, not to the story.
const refused = "refused"

// openings are the kinds of events that open a generation.
var openings = []string{"view", "lost", "left", "joined"}

// vague tells whether an opening line leaves out why there is a new generation,
// or whom it was about.
func vague(e train.Event) bool { return e.Kind == "view" || e.Kind == "lost" && e.Node == "the ring" }

// open shows an opening line. There are several where several nodes were lost
// and their neighbours saw one each.
func (s *Story) open(e train.Event) {
	s.opened[e.Generation] = true
	if s.held != nil && s.held.Generation == e.Generation {
		s.held = nil
	}
	s.Say("%s", e.Text)
}

// hold keeps a vague opening line, unless a better one was there first.
func (s *Story) hold(now time.Time, e train.Event) {
	if s.opened[e.Generation] || s.held != nil && s.held.Generation == e.Generation {
		return
	}
	s.release()
	s.held, s.heldAt = &e, now
}

func (s *Story) release() {
	if s.held != nil {
		s.open(*s.held) // which lets go of it
	}
}

// Tick lets time pass: an opening line that nobody bettered is shown.
func (s *Story) Tick(now time.Time) {
	if s.held != nil && now.Sub(s.heldAt) >= patience {
		s.release()
	}
}

// Process takes what happened to a node's process. Ends that were asked for are
// no news: the node itself tells of them.
func (s *Story) Process(now time.Time, e supervise.Event) {
	n := s.node(e.ID)
	switch e.Kind {
	case supervise.Started:
		s.nodes[e.ID] = &teller{alive: true, heard: now}
		if e.Attempt > 1 {
			s.Say("%v", e)
		}
	case supervise.Exited:
		n.alive, n.world = false, 0
		if died(e) && !n.killed {
			s.Say("%v", e)
		}
		s.forget()
	case supervise.Leaving:
		s.leave()
	default:
		s.Say("%v", e)
	}
}

// forget begins a new chapter if nobody lives: whoever is started again knows no
// generation, and counts from 1.
func (s *Story) forget() {
	for _, n := range s.nodes {
		if n.alive {
			return
		}
	}
	s.release()
	clear(s.told)
	clear(s.opened)
}

func died(e supervise.Event) bool {
	return e.Outcome == supervise.AtWork || e.Outcome == supervise.Lost
}

func (s *Story) leave() {
	if !s.leaving {
		s.leaving = true
		s.Say("leaving after the step in hand; Ctrl-C once more kills")
	}
}

// Retire tells that the job is done without some nodes, which shall go. They are
// those that live: the others have finished.
func (s *Story) Retire() (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		if n := s.nodes[id]; n.alive && n.result == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 && !s.leaving {
		s.leaving = true
		s.Say("the job is done; %s shall leave", strings.Join(ids, ", "))
	}
	return ids
}
