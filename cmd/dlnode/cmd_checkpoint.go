package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/checkpoint"
)

func (m *Main) newCheckpointCommand() *cobra.Command {
	return group("checkpoint", "Look at what was saved", m.newCheckpointLsCommand(), m.newCheckpointVerifyCommand())
}

const checkpointDirs = "DIR is a checkpoint, a directory of checkpoints, or the run directory around it."

func (m *Main) newCheckpointLsCommand() *cobra.Command {
	var asJSON, quick bool
	c := &cobra.Command{
		Use:   "ls DIR",
		Short: "List checkpoints, and what is damaged",
		Long:  "List checkpoints by trajectory and transition, after reading every byte of them.\n" + checkpointDirs,
		Args:  takes("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			return m.listCheckpoints(args[0], quick, asJSON)
		},
	}
	c.Flags().BoolVar(&quick, "quick", false, "read manifests alone: damage to other files goes unnoticed")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

// checkpointRow is a checkpoint as ls shows it.
type checkpointRow struct {
	Path        string `json:"path"`
	Trajectory  string `json:"trajectory,omitempty"`
	Transition  uint64 `json:"transition"`
	Step        uint64 `json:"step"`
	Epoch       int    `json:"epoch"`
	Bytes       int64  `json:"bytes,omitempty"`
	StateSHA256 string `json:"state_sha256,omitempty"` // digest of the manifest: the whole state
	ModelSHA256 string `json:"model_sha256,omitempty"`
	Damage      string `json:"damage,omitempty"`
}

func (m *Main) listCheckpoints(dir string, quick, asJSON bool) error {
	found, err := findCheckpoints(dir)
	if err != nil {
		return err
	}
	rows := make([]checkpointRow, len(found.entries))
	for i, e := range found.entries {
		rows[i] = rowOf(e)
		if damage := found.damage(e, quick); damage != nil {
			rows[i].Damage = damageText(e.Path, damage)
		}
	}
	if asJSON {
		enc := json.NewEncoder(m.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(rows)
	}
	return m.printCheckpoints(rows)
}

func rowOf(e checkpoint.Entry) checkpointRow {
	r := checkpointRow{Path: e.Path, Transition: e.Transition}
	if e.Err != nil {
		return r // nothing in its manifest can be believed
	}
	state, model := e.Manifest.Digest(), e.Manifest.ModelDigest()
	r.Trajectory, r.Step, r.Epoch = e.Manifest.Trajectory.String(), e.Manifest.Step, e.Manifest.Epoch
	r.Bytes = e.Manifest.Bytes()
	r.StateSHA256, r.ModelSHA256 = hex.EncodeToString(state[:]), hex.EncodeToString(model[:])
	return r
}

// printCheckpoints writes one line per checkpoint, and one more for damage.
func (m *Main) printCheckpoints(rows []checkpointRow) error {
	w := tabwriter.NewWriter(m.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TRAJECTORY\tTRANSITION\tSTEP\tEPOCH\tSIZE\tMODEL SHA-256")
	for _, r := range rows {
		if r.Trajectory == "" {
			fmt.Fprintf(w, "%s\t%d\t?\t?\t?\t?\n", filepath.Base(filepath.Dir(r.Path)), r.Transition)
		} else {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", r.Trajectory[:16], r.Transition, r.Step, r.Epoch, byteCount(r.Bytes), r.ModelSHA256)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Damage != "" {
			fmt.Fprintf(m.Stdout, "damaged: %s\n", r.Damage)
		}
	}
	return nil
}

func (m *Main) newCheckpointVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Read every byte of checkpoints and compare it with what was written",
		Long:  "Compare size and SHA-256 of every file with the manifest. Exits with 1 if anything is damaged.\n" + checkpointDirs,
		Args:  takes("DIR"),
		RunE:  func(_ *cobra.Command, args []string) error { return m.verifyCheckpoints(args[0]) },
	}
}

func (m *Main) verifyCheckpoints(dir string) error {
	found, err := findCheckpoints(dir)
	if err != nil {
		return err
	}
	damaged := 0
	for _, e := range found.entries {
		if err := found.damage(e, false); err != nil {
			damaged++
			fmt.Fprintf(m.Stdout, "damaged: %s\n", damageText(e.Path, err))
			continue
		}
		fmt.Fprintf(m.Stdout, "whole:   %s\n", e.Path)
	}
	if damaged > 0 {
		return exit(codeFailed, fmt.Errorf("%d of %d checkpoints damaged", damaged, len(found.entries)))
	}
	return nil
}

// checkpoints is what a path on the command line stands for.
type checkpoints struct {
	store   *checkpoint.Store
	entries []checkpoint.Entry // by trajectory and transition, at least one
	single  bool               // the path is a checkpoint itself
}

// findCheckpoints finds the checkpoints that a path stands for: a store, a run
// directory with a store in it, a trajectory in a store, one checkpoint.
func findCheckpoints(path string) (*checkpoints, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, exit(codeData, err)
	}
	if base := filepath.Base(path); base == "." || base == ".." {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		path = abs
	}
	path = filepath.Clean(path)
	for _, dir := range []string{path, filepath.Join(path, "checkpoints"), filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		found, err := listWithin(dir, path)
		if err != nil || len(found.entries) > 0 {
			return found, exit(codeData, err)
		}
	}
	if _, err := os.Stat(filepath.Join(path, "manifest.json")); err == nil {
		return strayCheckpoint(path)
	}
	return nil, exit(codeData, fmt.Errorf("no checkpoints in %s", path))
}

// listWithin lists the checkpoints of a store that lie at a path or below it.
func listWithin(dir, path string) (*checkpoints, error) {
	store, err := checkpoint.Open(checkpoint.OS(), dir)
	if err != nil {
		return nil, err
	}
	entries, err := store.List()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && dir != path {
		return &checkpoints{}, nil
	}
	if err != nil {
		return nil, err
	}
	found := &checkpoints{store: store, entries: slices.DeleteFunc(entries, func(e checkpoint.Entry) bool {
		return e.Path != path && !strings.HasPrefix(e.Path, strings.TrimSuffix(path, "/")+"/")
	})}
	found.single = len(found.entries) == 1 && found.entries[0].Path == path
	return found, nil
}

// strayCheckpoint is a checkpoint that somebody took out of its store.
func strayCheckpoint(path string) (*checkpoints, error) {
	store, err := checkpoint.Open(checkpoint.OS(), filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	e := checkpoint.Entry{Path: path}
	snap, err := store.Load(path)
	if err != nil {
		e.Err = err
	} else {
		e.Manifest, e.Transition = checkpoint.Describe(snap), snap.Transition
	}
	return &checkpoints{store: store, entries: []checkpoint.Entry{e}, single: true}, nil
}

// damage tells what is wrong with a checkpoint; quick looks no further than its
// manifest.
func (c *checkpoints) damage(e checkpoint.Entry, quick bool) error {
	if e.Err != nil || quick {
		return e.Err
	}
	return c.store.Verify(e.Path)
}

// damageText names the damaged file and what is wrong with it.
func damageText(path string, err error) string {
	if d := (*checkpoint.Damage)(nil); errors.As(err, &d) {
		return d.Error()
	}
	return path + ": " + err.Error()
}

// loadCheckpoint loads the checkpoint that a path stands for: itself, or the
// newest undamaged one in it. What is passed over is told on Stderr.
func (m *Main) loadCheckpoint(path string) (*checkpoint.Snapshot, string, error) {
	found, err := findCheckpoints(path)
	if err != nil {
		return nil, "", err
	}
	if runs := found.trajectories(); len(runs) > 1 {
		return nil, "", usage("%s holds checkpoints of %d trajectories (want one of %s)", path, len(runs), strings.Join(runs, ", "))
	}
	for _, e := range slices.Backward(found.entries) {
		snap, err := found.store.Load(e.Path)
		if err == nil {
			return snap, e.Path, nil
		}
		if found.single {
			return nil, "", exit(codeData, err)
		}
		fmt.Fprintf(m.Stderr, "dlnode: passed over %s\n", damageText(e.Path, err))
	}
	return nil, "", exit(codeData, fmt.Errorf("no undamaged checkpoint in %s", path))
}

// trajectories lists the directories that the checkpoints lie in.
func (c *checkpoints) trajectories() []string {
	var dirs []string
	for _, e := range c.entries {
		dirs = append(dirs, filepath.Dir(e.Path))
	}
	return slices.Compact(dirs)
}
