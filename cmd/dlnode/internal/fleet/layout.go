package fleet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dlnode/dlnode/train"
)

// Layout is the run directory of a fleet:
//
//	DIR/nodes.json     who runs, and where to ask; there while the fleet is
//	DIR/checkpoints/   shared by all nodes: equal states are equal files
//	DIR/logs/ID.log    what a node wrote to its standard error
//	DIR/ID/            a node's own: its journal
type Layout string

// Checkpoints is the directory that all nodes write their checkpoints to.
func (l Layout) Checkpoints() string { return filepath.Join(string(l), "checkpoints") }

// Logs is the directory of the nodes' logs.
func (l Layout) Logs() string { return filepath.Join(string(l), "logs") }

// Node is a node's own directory.
func (l Layout) Node(id string) string { return filepath.Join(string(l), id) }

func (l Layout) roster() string { return filepath.Join(string(l), rosterName) }

const rosterName = "nodes.json"

// Roster is what nodes.json tells of a running fleet.
type Roster struct {
	PID     int           `json:"pid"` // of the process that started the nodes
	Job     string        `json:"job"` // the job's name
	Started time.Time     `json:"started"`
	Nodes   []train.Ready `json:"nodes"` // those that listen, by name
}

// put takes in what a node says of itself, in place of what it said before.
func (r *Roster) put(ready train.Ready) {
	r.drop(ready.Node)
	i, _ := slices.BinarySearchFunc(r.Nodes, ready.Node, func(n train.Ready, id string) int { return cmp.Compare(n.Node, id) })
	r.Nodes = slices.Insert(r.Nodes, i, ready)
}

// drop forgets a node that has ended.
func (r *Roster) drop(id string) {
	r.Nodes = slices.DeleteFunc(r.Nodes, func(n train.Ready) bool { return n.Node == id })
}

// write replaces nodes.json as a whole, so that a reader sees one or the other.
func (r *Roster) write(l Layout) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.roster() + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, l.roster())
}

// ReadRoster returns the roster of a run directory. The error is fs.ErrNotExist
// where no fleet runs, nor died without a word.
func ReadRoster(l Layout) (*Roster, error) {
	b, err := os.ReadFile(l.roster())
	if err != nil {
		return nil, err
	}
	r := &Roster{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", l.roster(), err)
	}
	return r, nil
}

// Newest returns the run directory below runs whose fleet was heard of last.
// The error is fs.ErrNotExist if there is none.
func Newest(runs string) (Layout, error) {
	found, err := filepath.Glob(filepath.Join(runs, "*", rosterName))
	if err != nil {
		return "", err
	}
	var newest Layout
	var at time.Time
	for _, path := range found {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return "", err
		}
		if info.ModTime().After(at) {
			newest, at = Layout(filepath.Dir(path)), info.ModTime()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("no fleet runs below %s: %w", runs, fs.ErrNotExist)
	}
	return newest, nil
}
