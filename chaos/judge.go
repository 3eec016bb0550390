//go:build linux

package chaos

import (
	"path/filepath"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// judge holds what nodes have told, written and left against what the job comes to. It
// is to be called while their disks are there.
func (p *play) judge() error {
	r := p.report
	all, flaws, err := p.journals()
	if err != nil {
		return err
	}
	for _, flaw := range flaws {
		p.trouble("%s", flaw)
	}
	if len(r.Verdicts) == 0 {
		p.trouble("nobody finished")
	}
	for _, v := range r.Verdicts {
		if v.Verdict != r.Want {
			p.trouble("%s came to %+v, one process alone to %+v", v.Node, v.Verdict, r.Want)
		}
	}
	for _, bad := range checked(all, r.Job, r.Want.Transition) {
		p.trouble("%s", bad)
	}
	for _, bad := range grown(r.Before, r.After) {
		p.trouble("%s", bad)
	}
	for _, n := range p.fleet.nodes {
		r.Starts += len(n.past)
		if err := p.judgeCheckpoints(n); err != nil {
			return err
		}
	}
	track := trackOf(all)
	r.Usual = usualStep(track)
	dateDeaths(r.Played, track)
	r.Costs = costs(r.Played, track)
	r.Joins = joins(r.Played, track, r.Usual)
	return nil
}

func (p *play) journals() ([]lives.Life, []train.Flaw, error) {
	var names []string
	for _, n := range p.fleet.nodes {
		names = append(names, n.id)
	}
	return lives.Read(p.fleet.dir, names)
}

// judgeCheckpoints reads every byte of a node's checkpoints.
func (p *play) judgeCheckpoints(n *node) error {
	dir := p.fleet.limits.checkpoints(n.i)
	if dir == "" {
		dir = filepath.Join(p.fleet.dir, n.id, "checkpoints")
	}
	store, err := checkpoint.Open(checkpoint.OS(), dir)
	if err != nil {
		return err
	}
	entries, err := store.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := store.Verify(e.Path); err != nil {
			p.trouble("%s: checkpoint %s: %v", n.id, e.Path, err)
			continue
		}
		p.report.Checkpoints++
	}
	return nil
}
