package sim

// mutant is one bug of mutants.md: an edit of one file of the product.
type mutant struct {
	name  string
	by    string // who chose it
	file  string // from the root of the module, with slashes
	edits []edit
}

// edit replaces a piece of a file. The old text occurs in it exactly once, so
// that an edit is never planted in another place than the one it was chosen for.
type edit struct{ old, new string }

const (
	founder  = "founder"
	outsider = "outsider"
)

// mutants has the rows of mutants.md, in order.
var mutants = []mutant{
	{"skip-generation-check", founder, "cluster/view/machine.go", []edit{{
		`case !newer(v.Generation, name, m.gen, m.genName):`,
		`case v.Generation == 0:`,
	}}},
	{"early-done", founder, "allreduce/reducer.go", []edit{{
		`if r.waiting == 0 {`,
		`if r.waiting == 0 || r.waiting == 1 && r.unheard == 0 && len(r.totals) == 0 {`,
	}}},
	{"lost-overflow", founder, "train/step.go", []edit{{
		`case a.Kind == Update && exact.Overflow(a.Grad, vd.grad), exact.Overflow(a.Scalar, vd.scalar):`,
		`case false:`,
	}}},
	{"no-dir-sync", founder, "checkpoint/store.go", []edit{{
		`return m, kept, s.fs.SyncDir(parent)`,
		`return m, kept, nil`,
	}}},
	{"smallest-transition", founder, "cluster/view/machine.go", []edit{{
		`start := Start{View: p.name}`,
		`start := Start{View: p.name, Transition: p.seats[p.view.Rank(m.Self())].ack.Transition}`,
	}, {
		`start.Transition = max(start.Transition, s.ack.Transition)`,
		`start.Transition = min(start.Transition, s.ack.Transition)`,
	}}},
	{"quiet-too-early", founder, "train/node.go", []edit{{
		`if g.open || g.computing || g.fetching {`,
		`if g.open || g.fetching {`,
	}}},
	{"believe-any-copy", founder, "train/node.go", []edit{{
		`if err == nil && s.mark(s.witness(n.each)) != n.gen.start.Digest {`,
		`if err == nil && s.Transition != n.gen.start.Transition {`,
	}}},
	{"early-stopping-forgotten", founder, "train/state.go", []edit{{
		`	if s.HasBest {`,
		`	s.Stopping.Wait = 0
	if s.HasBest {`,
	}}},
	{"same-id-same-life", founder, "cluster/view/view.go", []edit{{
		`func(m Member) bool { return m.Node() == n })`,
		`func(m Member) bool { return m.ID == n.ID })`,
	}, {
		`	if s := v.own(); s != nil {
		if rank, ok`,
		`	if s := v.own(); s != nil && n.ID == "" {
		if rank, ok`,
	}}},
	{"one-sided-farewell", founder, "train/node.go", []edit{{
		`n.begin(now, &Attempt{Transition: n.state.Transition, Kind: Farewell, Step: n.state.Step})`,
		`n.bye()`,
	}}},
	{"barred-for-ever", founder, "cluster/view/machine.go", []edit{{
		`p.barred = now.Add(m.cfg.Retry << min(p.lost, 8))`,
		`p.barred = now.Add(m.cfg.Retry << 24)`,
	}}},
	{"dead-member-waited-for", founder, "cluster/view/peers.go", []edit{{
		`if was&^p.marks&able != 0 && m.mine`,
		`if was&^p.marks&able != 0 && !p.gone && m.mine`,
	}}},
	{"remainder-dropped", outsider, "allreduce/layout.go", []edit{{
		`return n/world*c + min(c, n%world) }`,
		`return n / world * c }`,
	}}},
	{"held-frame-not-copied", outsider, "allreduce/reducer.go", []edit{{
		`f.Payload, f.More = f.appendPayload(own[:0]), nil`,
		`_ = own`,
	}}},
	{"seen-survives", outsider, "allreduce/exact/sum.go", []edit{{
		`b.added, b.ints, b.seen = 0, 0, None`,
		`b.added, b.ints = 0, 0`,
	}}},
	{"seen-of-the-last-rank", outsider, "train/step.go", []edit{{
		`exact.MergeSeen(vd.grad, h.GradSeen)`,
		`copy(vd.grad, h.GradSeen)`,
	}}},
	{"best-is-an-alias", outsider, "train/step.go", []edit{{
		`s.best = append(s.best[:0], s.params...)`,
		`s.best = s.params`,
	}}},
	{"epoch-turns-early", outsider, "shard/plan.go", []edit{{
		`return step / uint64(p.StepsPerEpoch())`,
		`return (step + 1) / uint64(p.StepsPerEpoch())`,
	}}},
	{"stale-blob", outsider, "train/node.go", []edit{{
		`if n.blob == nil || n.blobAt != transition {`,
		`if n.blob == nil {`,
	}, {
		`	n.blob = nil
`,
		``,
	}}},
	{"snapshot-not-copied", outsider, "train/node.go", []edit{{
		`n.task.snapshot(n.spare)`,
		`n.task.snapshot(n.state)`,
	}}},
	{"final-save-skipped", outsider, "train/node.go", []edit{{
		`(final || n.policy.Writes(n.gen.rank) && !n.writing) {`,
		`(final || n.policy.Writes(n.gen.rank)) && !n.writing {`,
	}}},
	{"leaves-without-saving", outsider, "train/node.go", []edit{{
		`checkpoint.Moment{Step: n.state.Step, Stopping: true}`,
		`checkpoint.Moment{Step: n.state.Step}`,
	}}},
	{"watch-stands-still", outsider, "train/state.go", []edit{{
		`block := int(s.Transition % watchBlocks)`,
		`block := 0`,
	}, {
		`vectors := [][]float32{s.params}`,
		`vectors := [][]float32{s.params[:len(s.params)/watchBlocks]}`,
	}}},
	{"ack-before-quiet", outsider, "cluster/view/machine.go", []edit{{
		`	m.boundary("a wider view is accepted")
	if m.phase == idle {`,
		`	m.boundary("a wider view is accepted")
	if m.phase != running {`,
	}}},
	{"suspicion-never-cleared", outsider, "cluster/view/machine.go", []edit{{
		`p.fact, p.gone, p.left, p.pinging, p.reporter = f, false, false, false, Node{}`,
		`p.fact, p.gone, p.left, p.reporter = f, false, false, Node{}`,
	}}},
	{"loss-ignored-while-stopping", outsider, "cluster/view/machine.go", []edit{{
		`	if m.runsWith(n) {`,
		`	if m.phase == running && m.runsWith(n) {`,
	}}},
	{"member-goes-home", outsider, "cluster/view/machine.go", []edit{{
		`if m.self.Finished || m.last != nil || m.phase != idle ||`,
		`if m.self.Finished || m.phase != idle ||`,
	}}},
	{"min-nodes-only-at-start", outsider, "cluster/view/machine.go", []edit{{
		`case here < m.cfg.MinNodes:`,
		`case m.last == nil && here < m.cfg.MinNodes:`,
	}}},
	{"prune-keeps-the-oldest", outsider, "checkpoint/policy.go", []edit{{
		`return older[:max(0, len(older)-p.Keep)]`,
		`return older[min(p.Keep, len(older)):]`,
	}}},
	{"unverified-file", outsider, "checkpoint/read.go", []edit{{
		`if got := Hash(h.Sum(nil)); got != f.SHA256 {`,
		`if got := Hash(h.Sum(nil)); got == (Hash{}) {`,
	}}},
	{"moves-though-bound", founder, "train/follow.go", []edit{{
		`return !n.views.Bound() && !n.leaving && n.parting == nil
}`,
		`return !n.leaving && n.parting == nil
}`,
	}}},
	{"ahead-of-the-verdict", founder, "train/ahead.go", []edit{{
		`Begin(rate, a.params, grads, a.slots, s.Step)`,
		`Begin(rate, s.params, grads, s.slots, s.Step)`,
	}, {
		`s.params, a.params = a.params, s.params`,
		`_ = a.params`,
	}, {
		`s.slots[k], a.slots[k] = a.slots[k], s.slots[k]`,
		`_ = k`,
	}}},
	{"half-made-update-kept", founder, "train/ahead.go", []edit{{
		`making  int         // pieces in hand`,
		`making  int
	step    uint64`,
	}, {
		`	a.missing, a.due, a.begun = a.missing[:0], a.due[:0], 0
`,
		`	if a.step == s.Step+1 {
		return
	}
	a.step = s.Step + 1
	a.missing, a.due, a.begun = a.missing[:0], a.due[:0], 0
`,
	}}},
	{"record-applied-twice", founder, "train/record.go", []edit{{
		`	t.commit(s, a, vd, mean, nil, each)
	return nil`,
		`	t.commit(s, a, vd, mean, nil, each)
	t.commit(s, a, vd, mean, nil, each)
	return nil`,
	}}},
	{"record-skipped", founder, "train/record.go", []edit{{
		`	t.commit(s, a, vd, mean, nil, each)
	return nil`,
		`	if r.Elements == 0 {
		s.Transition, s.Next = s.Transition+1, Update
		return nil
	}
	t.commit(s, a, vd, mean, nil, each)
	return nil`,
	}}},
	{"caught-up-too-early", founder, "train/follow.go", []edit{{
		`n.gen != nil || n.state.Transition < f.newest {`,
		`n.gen != nil {`,
	}}},
	{"piece-of-another-record", founder, "train/follow.go", []edit{{
		`window(c.body, uint64(a.span.lo)`,
		`window(n.follower.coming[0].body, uint64(a.span.lo)`,
	}}},
	{"majority-ignored", founder, "cluster/view/expel.go", []edit{{
		`if string(d) != major {`,
		`if string(d) == major && len(count) > 1 {`,
	}}},
	{"second-opinion-ignored", founder, "train/probe.go", []edit{{
		`return c.Digest != all[0].Digest })`,
		`return c.Rank < 0 })`,
	}}},
	{"goes-on-from-a-state-in-doubt", founder, "train/probe.go", []edit{{
		`n.state.copyFrom(n.spare, n.each)
`,
		`n.kept = n.state.Transition
`,
	}}},
	{"piece-of-a-repeated-attempt", founder, "train/follow.go", []edit{{
		`		if p.attempt != h.ID {`,
		`		if p.attempt == 0 {`,
	}}},
	{"lends-what-it-leapt-over", founder, "train/lend.go", []edit{{
		`	l.forget(now)
	l.reach(n.state.Transition)
`,
		`	l.forget(now)
`,
	}}},
}
