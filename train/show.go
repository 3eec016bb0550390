package train

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/cputime"
)

// shown is what the driver keeps for people: nothing of it decides anything.
type shown struct {
	since         time.Time
	events        []Event // the last maxEvents
	checkpoint    string
	journalFailed bool
	epochs        map[int]bool // those in the journal
	epoch         epochTime    // since the last of them

	announced time.Time // when gossip was last told how far we are
	own       uint64    // samples that this node has computed
	ownAt     time.Time // as of the last announcement
	ownBefore uint64

	lastLine time.Time
	rates    []ratePoint
	rate     float64
}

type ratePoint struct {
	at      time.Time
	samples uint64
}

const (
	maxEvents     = 200
	progressEvery = 200 * time.Millisecond
	rateWindow    = 3 * time.Second
	mostLines     = 1000 // kept for a reader who does not read, beside those of the story
)

// Tell passes on a line of the story to log, journal, status page and parent.
func (d *driver) Tell(e Event) {
	d.log.Info(e.Text, "event", e.Kind, "generation", e.Generation, "step", e.Step)
	d.Record(e)
	d.line(Line{Event: &e})
	if e.Kind == "view" || e.Kind == "lost" || e.Kind == "joined" || e.Kind == "left" {
		d.progress(e.Time)
	}
}

// Record keeps an event without telling it aloud.
func (d *driver) Record(e Event) {
	d.shown.events = append(d.shown.events, e)
	if n := len(d.shown.events); n > maxEvents {
		d.shown.events = d.shown.events[n-maxEvents:]
	}
	d.journal.write(Record{T: "event", Time: e.Time, Node: d.cfg.Gossip.Name, Kind: e.Kind, About: e.Node, Text: e.Text, Generation: e.Generation, View: e.View, Step: e.Step, Millis: e.Millis})
}

// Committed keeps an account of a transition.
func (d *driver) Committed(c Committed) {
	now := time.Now()
	r := Record{
		T: "step", Time: now, Transition: c.Transition, Kind: string(c.Kind), Step: c.Step, Generation: c.Generation, World: c.World,
		Lo: c.Range.Lo, Hi: c.Range.Hi, Repeat: c.Repeat, Nonfinite: c.Nonfinite, Doubted: c.Doubted, Samples: c.Samples, Millis: millis(c.Took), Watch: fmt.Sprintf("%016x", c.Digest),
		Waited: millis(c.Input.Waited), Read: millis(c.Input.Read),
	}
	if c.Kind == Update {
		d.shown.own += uint64(c.Range.Len() * d.task.Plan.Micro)
		d.shown.epoch.add(c)
	}
	if c.Applied {
		r.Gradient, r.Own = fmt.Sprintf("%016x", c.Total), fmt.Sprintf("%016x", c.Own)
	}
	if len(c.Means) > 0 {
		loss := Number(c.Means[0])
		r.Loss = &loss
	}
	d.journal.write(r)
	if f := d.cfg.Flip; f.in(d.returns) && !f.ofGradients() && c.Kind == Update && c.Step >= f.Step && !d.hit.Swap(true) {
		f.state(d.host.Node().State())
	}
	if c.Kind != Update {
		d.progress(now)
	}
	if c.Epoch != nil && (c.Kind == Evaluate || d.task.Validation == nil) {
		d.recordEpoch(now, *c.Epoch, d.shown.epoch)
		d.shown.epoch = epochTime{}
		d.Record(Event{Time: now, Kind: "epoch", Generation: c.Generation, Step: c.Step, Text: d.epochText(*c.Epoch)})
	}
}

// recordEpoch writes an epoch into the journal, for those who draw its curves, and
// what time its steps took here.
func (d *driver) recordEpoch(now time.Time, e Epoch, spent epochTime) {
	d.shown.epochs[e.Epoch] = true
	d.journal.write(Record{
		T: "epoch", Time: now, Epoch: e.Epoch, Step: e.Step, Samples: e.Samples, LR: &e.LR, Values: d.epochValues(e),
		Millis: millis(spent.took), Waited: millis(spent.input.Waited), Read: millis(spent.input.Read),
	})
}

// epochTime is the time of an epoch's steps, as far as they were taken here.
type epochTime struct {
	took  time.Duration
	input Input
}

func (t *epochTime) add(c Committed) {
	t.took += c.Took
	t.input.Waited += c.Input.Waited
	t.input.Read += c.Input.Read
}

// recordHistory writes the epochs that ended before this process took part.
func (d *driver) recordHistory(now time.Time, history []Epoch) {
	for _, e := range history {
		if !d.shown.epochs[e.Epoch] {
			d.recordEpoch(now, e, epochTime{})
			d.shown.epoch = epochTime{} // of an epoch that others have ended
		}
	}
}

func (d *driver) epochText(e Epoch) string {
	text := fmt.Sprintf("epoch %d:", e.Epoch)
	for _, v := range d.epochValues(e) {
		text += fmt.Sprintf(" %s %.4f", v.Name, float64(v.Value))
	}
	return text
}

func (d *driver) epochValues(e Epoch) (all []Value) {
	for i, v := range e.Train {
		all = append(all, Value{d.task.scalars[i], v})
	}
	for i, v := range e.Validation {
		all = append(all, Value{"val_" + d.task.scalars[i], v})
	}
	return all
}

// publish shows progress from time to time.
func (d *driver) publish() {
	if now := time.Now(); now.Sub(d.shown.lastLine) >= progressEvery {
		d.progress(now)
	}
}

func (d *driver) progress(now time.Time) {
	d.shown.lastLine = now
	if d.lines.waiting() > mostLines {
		return
	}
	p := d.progressNow(now)
	d.line(Line{Progress: &p})
}

func (d *driver) progressNow(now time.Time) Progress {
	s := d.host.node.State()
	coordinator, waiting := d.host.node.Views().Status(now)
	p := Progress{
		Node: d.self.ID, Coordinator: coordinator.ID, Generation: d.host.node.Views().Fact().Generation, Transition: s.Transition,
		Step: s.Step, Epochs: d.task.Job.Epochs,
		Samples: d.samples(s), Values: d.values(s), Waiting: cmp.Or(waiting, d.peers.waiting()),
	}
	p.Epoch, p.Steps = d.task.place(s)
	if v, _ := d.host.node.View(); v != nil {
		p.World = v.World()
	}
	return p
}

// place returns the epoch in hand and the steps of the whole job. A job that has
// stopped early had no more than are done.
func (t *Task) place(s *State) (epoch int, steps uint64) {
	switch s.Next {
	case Update:
		return len(s.History) + 1, t.TotalSteps()
	case Evaluate:
		return len(s.History), t.TotalSteps()
	}
	return len(s.History), s.Step
}

// samples counts what all nodes have trained on since step 0.
func (d *driver) samples(s *State) uint64 {
	n := s.Samples
	for _, e := range s.History {
		n += e.Samples
	}
	return n
}

// values shows the epoch in hand and, beside it, the last validation.
func (d *driver) values(s *State) (all []Value) {
	if s.Samples > 0 {
		all = d.epochValues(Epoch{Train: d.task.running(s)})
	} else if len(s.History) > 0 {
		all = d.epochValues(Epoch{Train: s.History[len(s.History)-1].Train})
	}
	for i := len(s.History) - 1; i >= 0; i-- {
		if v := s.History[i].Validation; v != nil {
			return append(all, d.epochValues(Epoch{Validation: v})...)
		}
	}
	return all
}

// refresh renews the status page.
func (d *driver) refresh(now time.Time) {
	s := d.host.node.State()
	d.measureRate(now, d.samples(s))
	st := &Status{
		Ready: Ready{Node: d.self.ID, Incarnation: d.self.Incarnation, GRPC: d.self.Addr, Trajectory: hex.EncodeToString(d.task.Trajectory[:])},
		Job:   d.task.Job.Name, State: d.stateWord(), Progress: d.progressNow(now), Rate: d.shown.rate,
		Phases: d.phases(), Ahead: d.pool.ahead.found(), Counters: d.host.Counters(), CPUSeconds: cputime.Used().Seconds(), Allocated: allocated(), Events: d.shown.events[:len(d.shown.events):len(d.shown.events)],
		Since: d.shown.since, History: slices.Clone(s.History), Scalars: d.task.scalars, Checkpoint: d.shown.checkpoint,
		Goroutines: runtime.NumGoroutine(),
	}
	if d.gossip != nil {
		st.Ready = *d.ready()
	}
	d.members(now, st)
	d.status.Store(st)
}

func (d *driver) measureRate(now time.Time, samples uint64) {
	r := &d.shown.rates
	*r = append(*r, ratePoint{now, samples})
	for len(*r) > 2 && now.Sub((*r)[1].at) > rateWindow {
		*r = (*r)[1:]
	}
	first := (*r)[0]
	if took := now.Sub(first.at).Seconds(); took > 0 && samples >= first.samples {
		d.shown.rate = float64(samples-first.samples) / took
	}
}

// ownSpeed returns how many samples this node computed per second since it was
// last asked. Short microbatches count as full ones.
func (d *driver) ownSpeed() float64 {
	now := time.Now()
	took := now.Sub(d.shown.ownAt).Seconds()
	speed := float64(d.shown.own-d.shown.ownBefore) / took
	d.shown.ownAt, d.shown.ownBefore = now, d.shown.own
	return speed
}

func (d *driver) stateWord() string {
	s, g := d.host.node.State(), d.host.node.gen
	switch {
	case s.Next == Done:
		return "finished"
	case g == nil:
		return "waiting"
	case g.fetching:
		return "copying"
	case s.Next == Evaluate:
		return "evaluating"
	}
	return "training"
}

func (d *driver) members(now time.Time, st *Status) {
	coordinator, _ := d.host.node.Views().Status(now)
	v, _ := d.host.node.View()
	facts := append(d.host.node.Views().Peers(), d.host.node.Views().Fact())
	if v != nil {
		name := v.Name()
		st.View = hex.EncodeToString(name[:])
	}
	for _, f := range facts {
		m := MemberStatus{
			Node: f.ID, Addr: f.Addr, Zone: f.Zone, Rank: -1, Role: "worker", Transition: f.Transition, Entry: f.Entry,
			Speed: float64(f.Speed), Self: f.ID == d.self.ID && f.Incarnation == d.self.Incarnation, Incarnation: f.Incarnation,
		}
		if v != nil {
			m.Rank = v.Rank(f.Node())
		}
		m.Role = role(f, coordinator, m.Rank)
		if m.Rank >= 0 {
			m.Transition = max(m.Transition, d.host.node.State().Transition)
			st.Members = append(st.Members, m)
		} else {
			st.Others = append(st.Others, m)
		}
	}
}

func role(f view.Fact, coordinator view.Node, rank int) string {
	switch {
	case f.Leaving:
		return "leaving"
	case f.Node() == coordinator:
		return "coordinator"
	case rank < 0:
		return "joining"
	}
	return "worker"
}

// allocated counts the objects that this process has taken from the heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// phases returns where the time goes, per step.
func (d *driver) phases() PhaseMillis {
	p, cost := d.host.node.Phases(), d.host.cost
	if p.Steps == 0 {
		return PhaseMillis{}
	}
	n := time.Duration(p.Steps)
	m := PhaseMillis{
		Data: millis(p.Input.Waited / n), Read: millis(p.Input.Read / n),
		Round: millis(d.engine.RoundTime() / n), Compute: millis(max(0, p.Compute-cost.update) / n),
		Reduce: millis(p.Reduce / n), Update: millis(cost.update / n),
	}
	if cost.copies > 0 {
		m.Stall = millis(cost.stall / time.Duration(cost.copies))
	}
	return m
}
