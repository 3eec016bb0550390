package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// row is one line of the tables in the making.
type row struct {
	net     *net
	turn    turn
	ours    *side
	peers   []*side
	ratios  [][]float64 // dlnode's rate by that of each peer, turn by turn
	profile string
}

func (c *config) row(n *net, batch, threads int) *row {
	micro := cmp.Or(c.micro, max(1, batch/threads))
	r := &row{net: n, ours: &side{name: "dlnode"}, turn: turn{
		Net: n.name, Batch: batch, Threads: threads, Micro: min(micro, batch), Samples: n.cut(batch), Windows: windows,
	}}
	for _, python := range c.pythons {
		r.peers = append(r.peers, &side{name: python, python: python})
	}
	r.ratios = make([][]float64, len(r.peers))
	if c.profiles != "" {
		r.profile = filepath.Join(c.profiles, fmt.Sprintf("%s-%d-%d.pprof", n.name, batch, threads))
	}
	return r
}

func (r *row) name() string {
	s := "s"
	if r.turn.Threads == 1 {
		s = ""
	}
	return fmt.Sprintf("%s, batch %d, %d thread%s", r.net.about, r.turn.Batch, r.turn.Threads, s)
}

// measure tunes the peers and lets all take turns.
func (c *config) measure(r *row) error {
	progress("%s", r.name())
	trial := r.turn
	trial.Seconds = c.tune
	for _, p := range r.peers {
		if err := p.tune(trial, r.net.fitting(c.switches)); err != nil {
			return err
		}
	}
	for round := range c.rounds {
		if err := c.round(r, round); err != nil {
			return err
		}
	}
	return nil
}

// fitting leaves out the switches that can't matter to a net.
func (n *net) fitting(switches []string) (fit []string) {
	for _, s := range switches {
		if n.conv || s != "channels_last" {
			fit = append(fit, s)
		}
	}
	return fit
}

func (c *config) round(r *row, round int) error {
	t := r.turn
	t.Seconds = c.seconds
	mine := t
	if round == 0 {
		mine.Profile = r.profile
	}
	got, err := r.ours.play(mine)
	if err != nil {
		return err
	}
	rate := r.ours.add(got)
	line := fmt.Sprintf("  round %d: dlnode %.4g (%.2f CPUs)", round+1, rate, got.Busy)
	for i, p := range r.peers {
		got, err := p.play(t)
		if err != nil {
			return err
		}
		theirs := p.add(got)
		r.ratios[i] = append(r.ratios[i], rate/theirs)
		line += fmt.Sprintf(", %s %.4g (%.2f)", p.name, theirs, got.Busy)
	}
	progress("%s", line)
	return nil
}

// peer returns which of the peers is the fastest, -1 if there is none.
func (r *row) peer() int {
	if len(r.peers) == 0 {
		return -1
	}
	rates := make([]float64, len(r.peers))
	for i, p := range r.peers {
		rates[i] = median(p.rates)
	}
	return slices.Index(rates, slices.Max(rates))
}

// settings lists the switches that the fastest peer took.
func (r *row) settings() string {
	i := r.peer()
	if i < 0 {
		return ""
	}
	return strings.Join(r.peers[i].switches, ", ")
}
