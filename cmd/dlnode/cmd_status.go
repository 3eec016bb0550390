package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/fleet"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/ui"
	"github.com/dlnode/dlnode/train"
)

// statusFlags are the flags of dlnode status.
type statusFlags struct {
	addr   string
	json   bool
	events int
}

func (m *Main) newStatusCommand() *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Ask a node how things stand",
		Long: "status asks any node of a cluster, as all of them know: the view and its members,\n" +
			"where training is, where the time goes, and what happened last. Without --addr it asks\n" +
			"a node of the newest launch below " + runsDir + ".",
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error { return m.status(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.addr, "addr", "", "`host:port` of a node's gRPC server")
	fl.BoolVar(&f.json, "json", false, "print all that the node tells, as JSON")
	fl.IntVar(&f.events, "events", 10, "how many of the last events to print")
	return c
}

func (m *Main) status(ctx context.Context, f statusFlags) error {
	s, err := find(ctx, f.addr)
	if err != nil {
		return err
	}
	if f.json {
		enc := json.NewEncoder(m.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	var out bytes.Buffer
	writeStatus(&out, s, f.events, time.Now())
	if err := writeConfusions(&out, s.History); err != nil {
		return err
	}
	_, err = out.WriteTo(m.Stdout)
	return err
}

// find asks the node at an address, or else one of the newest launch.
func find(ctx context.Context, addr string) (*train.Status, error) {
	if addr != "" {
		return ask(ctx, addr)
	}
	dir, err := fleet.Newest(runsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("no launch runs below %s: name a node with --addr host:port, the address in its log line \"listens\"", runsDir)
	}
	if err != nil {
		return nil, err
	}
	r, err := fleet.ReadRoster(dir)
	if err != nil {
		return nil, err
	}
	failed := fmt.Errorf("the launch in %s has no node that listens yet", dir)
	for _, n := range r.Nodes {
		s, err := ask(ctx, n.GRPC)
		if err == nil {
			return s, nil
		}
		failed = fmt.Errorf("%s of the launch in %s: %w", n.Node, dir, err)
	}
	return nil, failed
}

// ask returns the status of the node at an address.
func ask(ctx context.Context, addr string) (*train.Status, error) {
	client := rpc.NewClient(rpc.ClientConfig{})
	defer client.Close()
	b, err := client.Status(ctx, addr)
	if err != nil {
		return nil, err
	}
	s := &train.Status{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("the status of %s cannot be read: %w", addr, err)
	}
	return s, nil
}

// writeStatus writes a status for people: what runs, who is in it, where the time
// goes, what happened.
func writeStatus(w io.Writer, s *train.Status, events int, now time.Time) {
	p := s.Progress
	fmt.Fprintf(w, "%s: %s, asked %s at %s (process %d, up %s)\n", s.Job, s.State, s.Node, s.GRPC, s.PID, ui.Span(now.Sub(s.Since)))
	fmt.Fprintf(w, "trajectory %s\n", short(s.Trajectory))
	if s.View == "" {
		fmt.Fprintf(w, "no view\n")
	} else {
		fmt.Fprintf(w, "view %s, generation %d, %s, coordinator %s\n", short(s.View), p.Generation, nodes(p.World), p.Coordinator)
	}
	if p.Waiting != "" {
		fmt.Fprintf(w, "%s\n", p.Waiting)
	}
	fmt.Fprintf(w, "epoch %d/%d, step %d/%d%s, %s samples/s\n\n", p.Epoch, p.Epochs, p.Step, p.Steps, values(p.Values), ui.SI(s.Rate))
	writeMembers(w, s)
	writeCosts(w, s)
	writeEvents(w, s.Events, events)
}

// short is the beginning of a hash, enough to tell two apart.
func short(hash string) string { return hash[:min(16, len(hash))] }

func values(all []train.Value) string {
	var b strings.Builder
	for _, v := range all {
		fmt.Fprintf(&b, ", %s %s", v.Name, ui.Number(float64(v.Value)))
	}
	return b.String()
}

// writeMembers writes the table of members, by rank, and of the nodes around.
func writeMembers(w io.Writer, s *train.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tADDRESS\tZONE\tRANK\tTRANSITION\tSAMPLES/S\tSINCE")
	members := slices.SortedFunc(slices.Values(s.Members), func(a, b train.MemberStatus) int { return a.Rank - b.Rank })
	for _, m := range append(members, s.Others...) {
		name, rank, entry := m.Node, "-", "-"
		if m.Self {
			name += " *"
		}
		if m.Rank >= 0 {
			rank = strconv.Itoa(m.Rank)
		}
		if m.Entry > 0 {
			entry = fmt.Sprintf("generation %d", m.Entry)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", name, m.Role, m.Addr, orDash(m.Zone), rank, m.Transition, speed(m.Speed), entry)
	}
	t.Flush() // into memory
}

// speed writes a node's own speed, which is not known before it has worked.
func speed(x float64) string {
	if x == 0 {
		return "-"
	}
	return ui.SI(x)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// writeCosts writes where the time of a step goes on the node that was asked,
// and what it counted.
func writeCosts(w io.Writer, s *train.Status) {
	ms, c := s.Phases, s.Counters
	fmt.Fprintf(w, "\na step here: compute %.2f ms, reduce %.2f ms, update %.2f ms; a checkpoint stops it for %.2f ms\n",
		ms.Compute, ms.Reduce, ms.Update, ms.Stall)
	fmt.Fprintf(w, "data here: waited %.2f ms a step for samples, %s of it; read for %.2f ms\n", ms.Data, percent(ms.Waiting()), ms.Read)
	fmt.Fprintf(w, "counted here: %d transitions, %d views, %d groups lost, %d attempts interrupted, %d repeated, %d checkpoints (%d failed), %sB in, %sB out\n",
		c.Steps, c.Views, c.Lost, c.Interrupted, c.Repeats, c.Checkpoints, c.SaveErrors, ui.SI(float64(c.BytesIn)), ui.SI(float64(c.BytesOut)))
}

// percent writes a share.
func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// writeEvents writes the last n events.
func writeEvents(w io.Writer, all []train.Event, n int) {
	all = all[len(all)-min(max(n, 0), len(all)):]
	if len(all) > 0 {
		fmt.Fprintln(w)
	}
	for _, e := range all {
		text := e.Text
		if e.Kind == "checkpoint" {
			text = "checkpoint " + text // which says only where
		}
		fmt.Fprintf(w, "%s  %s\n", e.Time.Local().Format("15:04:05.000"), ui.Clean(text))
	}
}
