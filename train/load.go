package train

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dlnode/dlnode/checkpoint"
)

// LoadState finds the newest state in the store that can be believed; an empty
// store gives the task's starting state. tell takes what was passed over and
// from where the run resumes, events whose Time is zero.
func LoadState(t *Task, store *checkpoint.Store, tell func(Event)) (*State, error) {
	if err := store.Sweep(); err != nil {
		tell(Event{Kind: "damaged", Text: fmt.Sprintf("old temporary files stay: %v", err)})
	}
	if err := refuseOthers(t, store); err != nil {
		return nil, err
	}
	snap, skipped, err := store.Latest(t.Trajectory)
	for _, s := range skipped {
		tell(Event{Kind: "damaged", Text: fmt.Sprintf("checkpoint %s is passed over: %s", s.Path, s.Reason)})
	}
	if errors.Is(err, checkpoint.ErrNone) {
		return t.Start(), nil
	}
	if err != nil {
		return nil, err
	}
	s, err := t.restore(snap)
	if err != nil {
		return nil, fmt.Errorf("checkpoint of transition %d: %w", snap.Transition, err)
	}
	tell(Event{Kind: "resume", Step: s.Step, Text: fmt.Sprintf("resumes from the checkpoint of step %d", s.Step)})
	return s, nil
}

// OtherTrajectoryError tells that a directory holds the states of another
// trajectory, and in what its job differs.
type OtherTrajectoryError struct {
	Dir         string
	Differences []string
}

func (e *OtherTrajectoryError) Error() string {
	return fmt.Sprintf("%s holds checkpoints of another trajectory:\n  %s\nTrain in another directory, or start a new trajectory from that state with --fork",
		e.Dir, strings.Join(e.Differences, "\n  "))
}

// refuseOthers keeps a directory to one trajectory.
func refuseOthers(t *Task, store *checkpoint.Store) error {
	all, err := store.Trajectories()
	if err != nil || len(all) == 0 {
		return err
	}
	for _, other := range all {
		if other.ID == t.Trajectory {
			return nil
		}
	}
	here := t.Identity()
	diff := here.Differences("here", "there", Identity{Numerics: Numerics, Job: all[0].Job, Data: here.Data, Meaning: here.Meaning, Start: here.Start})
	if len(diff) == 1 && strings.HasPrefix(diff[0], "starting state") {
		diff = []string{"the job is the same, but data, program or starting state are not"}
	}
	return &OtherTrajectoryError{store.Dir(), diff}
}
