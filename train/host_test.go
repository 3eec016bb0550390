package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/shard"
)

// stage has a few hosts talk to each other. Messages and facts arrive at once;
// nothing is ever computed, so a group stands still until a test ends it.
type stage struct {
	t     *testing.T
	task  *Task
	now   time.Time
	queue []func()
	hosts []*Host
	on    []*stand
}

// stand is the world of one host, and what was asked of it.
type stand struct {
	*stage
	fact     view.Fact
	describe func() ([]byte, error)
	pinged   []string
	told     []Event
	groups   []GroupHandlers
	cfg      allreduce.GroupConfig // of the last group
	closed   []allreduce.ClosingNote
}

func newStage(t *testing.T, size int) *stage {
	s := &stage{t: t, task: simTask(t), now: time.Unix(1_700_000_000, 0)}
	for i := range size {
		f := view.Fact{ID: string(rune('a' + i)), Incarnation: uint64(i + 1), Addr: fmt.Sprint("addr-", i), Trajectory: s.task.Trajectory}
		w := &stand{stage: s, fact: f}
		s.on = append(s.on, w)
		s.hosts = append(s.hosts, NewHost(HostConfig{Task: s.task, Self: f, Expect: size}, s.task.Start(), w))
	}
	for _, h := range s.hosts {
		h.Begin()
		for _, w := range s.on {
			if w.fact.Node() != h.self {
				h.Up(w.fact)
			}
		}
	}
	return s
}

// together lets the hosts meet and start a view.
func (s *stage) together() *stage {
	s.t.Helper()
	for _, h := range s.hosts {
		h.Joined()
	}
	s.pass(2 * time.Second)
	for _, h := range s.hosts {
		if v, _ := h.Node().View(); v == nil || v.World() != len(s.hosts) {
			s.t.Fatalf("%s runs view %v", h.self.ID, v)
		}
	}
	for _, w := range s.on {
		w.pinged, w.told = nil, nil
	}
	return s
}

// pass lets time pass, tick by tick.
func (s *stage) pass(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(50 * time.Millisecond) {
		for _, h := range s.hosts {
			h.Tick()
		}
		s.settle()
	}
}

func (s *stage) settle() {
	for len(s.queue) > 0 {
		f := s.queue[0]
		s.queue = s.queue[1:]
		f()
	}
}

func (s *stage) later(f func()) { s.queue = append(s.queue, f) }

func (s *stage) at(addr string) *Host {
	i := slices.IndexFunc(s.on, func(w *stand) bool { return w.fact.Addr == addr })
	return s.hosts[i]
}

func (w *stand) Soon(do func()) { w.later(do) }

func (w *stand) Now() time.Time { return w.now }

func (w *stand) Signs() Signs { return Signs{} }

func (w *stand) Deliver(addr string, e rpc.Envelope, failed func(error)) {
	w.later(func() {
		m, err := Admit(w.task, e)
		if err != nil {
			failed(err)
			return
		}
		w.at(addr).Receive(m)
	})
}

func (w *stand) Ping(addr string, incarnation uint64, _ time.Duration, done func([]byte, error)) {
	w.pinged = append(w.pinged, addr)
	w.later(func() { done(AnswerPing(w.at(addr).Pong(), incarnation, Signs{}, rpc.Progress{})) })
}

func (w *stand) Describe(_ string, done func([]byte, error)) { w.later(func() { done(w.describe()) }) }

func (w *stand) Fetch(string, rpc.FetchRequest, func([]byte, error)) func() { return func() {} }

func (w *stand) Follow(string, rpc.FollowRequest, time.Duration, func(rpc.Piece, error)) func() {
	return func() {}
}

func (w *stand) Announce(f view.Fact) {
	for i, o := range w.on {
		if o != w {
			w.later(func() { w.hosts[i].Up(f) })
		}
	}
}

func (w *stand) OpenGroup(cfg allreduce.GroupConfig, _ []string, h GroupHandlers) Link {
	w.cfg, w.groups = cfg, append(w.groups, h)
	return w
}

func (w *stand) Start(allreduce.Op) {}

func (w *stand) Ready(int, int) {}

func (w *stand) Head([]byte) {}

func (w *stand) Close(ending allreduce.Ending, blame, reason string) {
	w.closed = append(w.closed, allreduce.ClosingNote{By: w.cfg.Names[w.cfg.Config.Rank], Blame: blame, Reason: reason, Ending: ending})
}

func (w *stand) Progress() rpc.Progress { return rpc.Progress{BytesIn: 3, BytesOut: 5} }

func (w *stand) Compute(_ *Attempt, _ shard.Range, _ []float32, _ func(lo, hi int), done func(Contribution, error)) func() {
	return func() { w.later(func() { done(Contribution{}, context.Canceled) }) }
}

func (w *stand) Save(*checkpoint.Snapshot, func(checkpoint.Result)) {
	w.t.Error("nothing was to be saved")
}
func (w *stand) Committed(Committed) {}
func (w *stand) Tell(e Event)        { w.told = append(w.told, e) }
func (w *stand) Record(Event)        {}

// end has the last group of a host end with a note.
func (w *stand) end(note allreduce.ClosingNote) { w.groups[len(w.groups)-1].Down(note) }

func TestAMessageOfAnotherTrajectoryIsRefused(t *testing.T) {
	task := simTask(t)
	m := view.Msg{From: view.Fact{ID: "b", Incarnation: 2, Addr: "x"}, Hello: &view.Hello{}}
	e := rpc.Envelope{Trajectory: task.Trajectory, Payload: m.Encode()}
	if got, err := Admit(task, e); err != nil || got.From != m.From || got.Hello == nil {
		t.Errorf("ours: %+v, %v", got, err)
	}
	e.Trajectory[0]++
	if _, err := Admit(task, e); err == nil || !strings.Contains(err.Error(), "is not walked here") {
		t.Errorf("another's: %v", err)
	}
	if _, err := Admit(task, rpc.Envelope{Trajectory: task.Trajectory, Payload: []byte("{}")}); err == nil {
		t.Error("a message that says nothing was let in")
	}
}

func TestAPingIsForOneLifeOfANode(t *testing.T) {
	p := view.Pong{Fact: view.Fact{ID: "a", Incarnation: 7}, Generation: 4}
	link := rpc.Progress{FramesOut: 3, Peers: []rpc.PeerProgress{{FramesOut: 1}, {FramesOut: 2}}}
	for _, asked := range []uint64{0, 7} {
		b, err := AnswerPing(p, asked, Signs{Work: 10}, link)
		var got view.Pong
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		want := p
		want.Beat, want.Sent = 13, []uint64{1, 2}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("asked for %d: %+v, %v; want %+v", asked, got, err, want)
		}
	}
	if _, err := AnswerPing(p, 6, Signs{Work: 10}, link); err == nil {
		t.Error("answered for a former life")
	}
}

// fetched keeps what a request was answered.
type fetched struct {
	times int
	blob  []byte
	err   error
}

func (f *fetched) reply(blob []byte, err error) { f.times, f.blob, f.err = f.times+1, blob, err }

func TestAFetchWaitsForItsViewTwoSeconds(t *testing.T) {
	s := newStage(t, 1)
	other := newStage(t, 1).together() // the same cluster, further on
	comes := rpc.FetchRequest{View: other.hosts[0].linkView.Fence()}
	var f, never fetched
	s.hosts[0].Serve(comes, f.reply)
	s.hosts[0].Serve(rpc.FetchRequest{View: allreduce.Fence{1}}, never.reply)
	s.pass(time.Second)
	if f.times+never.times != 0 {
		t.Fatalf("answered before any view was there: %v, %v", f, never)
	}
	s.hosts[0].Joined()
	s.pass(900 * time.Millisecond)
	if f.times != 1 || f.err != nil || len(f.blob) == 0 {
		t.Errorf("when the view had come: %d answers, %d bytes, %v", f.times, len(f.blob), f.err)
	}
	if never.times != 0 {
		t.Errorf("answered early: %v", never.err)
	}
	s.pass(200 * time.Millisecond)
	if never.times != 1 || !errors.Is(never.err, ErrNotHere) {
		t.Errorf("after two seconds: %d answers, %v", never.times, never.err)
	}
}

func TestWhoeverWaitsForTheStateOfANodeThatGoesIsTold(t *testing.T) {
	s := newStage(t, 1)
	var before, after fetched
	s.hosts[0].Serve(rpc.FetchRequest{View: allreduce.Fence{1}}, before.reply)
	s.hosts[0].Abort(errors.New("enough"))
	s.hosts[0].Serve(rpc.FetchRequest{View: allreduce.Fence{1}}, after.reply)
	if before.times != 1 || before.err == nil || after.times != 1 || after.err == nil {
		t.Errorf("before: %+v, after: %+v", before, after)
	}
}

func TestAClosingNoteBecomesACauseInTheWordsOfViews(t *testing.T) {
	s := newStage(t, 2).together()
	v, _ := s.hosts[0].Node().View()
	a, b := v.Members[0].Node(), v.Members[1].Node()
	for _, c := range []struct {
		note allreduce.ClosingNote
		want view.Cause
	}{
		{allreduce.ClosingNote{By: b.String(), Reason: "end", Ending: allreduce.Orderly}, view.Cause{}},
		{allreduce.ClosingNote{By: b.String(), Reason: "it differs", Ending: allreduce.Fatal}, view.Cause{By: b, Reason: "it differs", Fatal: true}},
		{allreduce.ClosingNote{By: b.String(), Blame: a.String(), Reason: "reset"}, view.Cause{Blame: a, By: b, Reason: "reset"}},
		{allreduce.ClosingNote{By: b.String(), Reason: "refused"}, view.Cause{By: b, Reason: "refused"}},
		{allreduce.ClosingNote{By: "x#1", Blame: "y#2", Reason: "strange"}, view.Cause{Reason: "strange"}},
		{allreduce.ClosingNote{}, view.Cause{Reason: "no reason is given"}}, // not an orderly end
	} {
		if got := causeOf(v, c.note); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.note, got, c.want)
		}
	}
}

func TestNobodyHoldsMoreOfOthersThanTheTaskHas(t *testing.T) {
	s := newStage(t, 2).together()
	longest := 0
	for _, k := range []Kind{Update, Evaluate, Farewell} {
		a := &Attempt{Kind: k}
		c := Contribution{Grad: exact.NewSum(s.task.windows, 1), Scalars: s.task.newScalars(k, 1)}
		if a.Kind == Update {
			a.Grad = make([]int16, len(s.task.windows))
			c.Grad.Reset(a.Grad)
		}
		n := len(s.task.header(a, c, witness{}, 0, 0, 0))
		if n != s.task.headerLen(k) {
			t.Errorf("the header of an attempt at %v has %d bytes, %d were told", k, n, s.task.headerLen(k))
		}
		longest = max(longest, n)
	}
	if c := s.on[0].cfg.Config; c.MaxElements != s.task.Model.NumParams() || c.MaxHeader != longest {
		t.Errorf("%d elements and headers of %d bytes, want %d and %d", c.MaxElements, c.MaxHeader, s.task.Model.NumParams(), longest)
	}
}

func TestABrokenGroupHasTheBlamedOneAskedWhetherItLives(t *testing.T) {
	s := newStage(t, 2).together()
	w, b := s.on[0], s.on[1].fact
	w.end(allreduce.ClosingNote{By: w.cfg.Names[w.cfg.Config.Rank], Blame: b.Node().String(), Reason: "stream reset"})
	s.settle()
	if !slices.Contains(w.pinged, b.Addr) {
		t.Error("b was blamed, and not asked")
	}
	c := s.hosts[0].Counters()
	if c.Lost != 1 || c.Interrupted != 1 || c.Views != 1 || c.BytesIn != 3 || c.BytesOut != 5 {
		t.Errorf("counters %+v", c)
	}
}

func TestAGroupThatNobodyIsToBlameForIsMadeAnew(t *testing.T) {
	s := newStage(t, 2).together()
	for _, w := range s.on {
		w.end(allreduce.ClosingNote{By: s.on[1].fact.Node().String(), Reason: "refused"})
	}
	s.settle()
	if w := s.on[0]; len(w.pinged) > 0 { // b waits for the coordinator, and may ask
		t.Errorf("a asked %v whether they live", w.pinged)
	}
	s.pass(2 * time.Second)
	for i, w := range s.on {
		if len(w.groups) != 2 || s.hosts[i].Exit() != nil {
			t.Errorf("%s has had %d groups, exit %v", w.fact.ID, len(w.groups), s.hosts[i].Exit())
		}
	}
}

func TestAFatalNoteEndsTheRun(t *testing.T) {
	s := newStage(t, 2).together()
	s.on[0].end(allreduce.ClosingNote{By: s.on[1].fact.Node().String(), Reason: "the state of b differs", Ending: allreduce.Fatal})
	var fatal *FatalError
	if e := s.hosts[0].Exit(); e == nil || !errors.As(e.Err, &fatal) || e.Err.Error() != "the state of b differs" {
		t.Errorf("exit %+v", e)
	}
}

func TestLastWordsSayHowAGroupEnds(t *testing.T) {
	for _, c := range []struct {
		err  error
		want allreduce.ClosingNote
	}{
		{&FatalError{errors.New("not a number")}, allreduce.ClosingNote{Reason: "not a number", Ending: allreduce.Fatal}},
		{errors.New("disk gone"), allreduce.ClosingNote{Blame: "a#0000000000000001", Reason: "disk gone", Ending: allreduce.Broken}},
	} {
		s := newStage(t, 2).together()
		s.hosts[0].Abort(c.err)
		c.want.By = s.on[0].cfg.Names[s.on[0].cfg.Config.Rank]
		if got := s.on[0].closed; len(got) != 1 || got[0] != c.want {
			t.Errorf("%v: closed with %+v, want %+v", c.err, got, c.want)
		}
		if e := s.hosts[0].Exit(); e == nil || e.Err != c.err {
			t.Errorf("%v: exit %+v", c.err, e)
		}
	}
}

func TestAJuniorStrangerIsToldOfAndNotLetIn(t *testing.T) {
	s := newStage(t, 1).together()
	other := s.task.Identity()
	other.Numerics++
	s.on[0].describe = func() ([]byte, error) { return json.Marshal(other) }
	s.hosts[0].Up(view.Fact{ID: "x", Incarnation: 9, Addr: "addr-x", Trajectory: [32]byte{1}})
	s.settle()
	i := slices.IndexFunc(s.on[0].told, func(e Event) bool { return e.Kind == "stranger" })
	if i < 0 || s.hosts[0].Exit() != nil {
		t.Fatalf("told %+v, exit %v", s.on[0].told, s.hosts[0].Exit())
	}
	if e := s.on[0].told[i]; e.Node != "x" || !strings.Contains(e.Text, "x (addr-x) walks another trajectory: ") || !e.Time.Equal(s.now) {
		t.Errorf("told %+v", e)
	}
}
