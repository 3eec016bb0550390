package checkpoint

import (
	"fmt"
	"slices"
)

// Policy decides when a checkpoint is written, by whom, and which ones go. It is
// a value without memory: the same questions get the same answers on every node,
// so nobody has to be told.
type Policy struct {
	EverySteps uint64 // optimizer steps between two checkpoints; 0 writes only at the end
	Keep       int    // how many of the newest stay on a disk; 0 keeps all
	Replicas   int    // so many members write, each to its own directory; at least 1
}

// Validate tells which field can't be, and what it may be.
func (p Policy) Validate() error {
	if p.Keep < 0 {
		return fmt.Errorf("checkpoint: keep is %d; it must be 0 (all) or more", p.Keep)
	}
	if p.Replicas < 1 {
		return fmt.Errorf("checkpoint: replicas is %d; it must be 1 or more", p.Replicas)
	}
	return nil
}

// Moment is the transition that has just been made.
type Moment struct {
	Step     uint64 // updates made so far, this one included
	Update   bool   // the transition was an update, not an evaluation or the like
	Finished bool   // the transition finished the run
	Stopping bool   // the run is stopped here on purpose and to be resumed later
}

// Due tells whether the state after m is to be written, and why in words for the
// log; the empty string says no. Only updates count steps, so an evaluation that
// follows the update of a due step does not write the same weights again.
func (p Policy) Due(m Moment) (why string) {
	switch {
	case m.Finished:
		return "the run is finished"
	case m.Stopping:
		return "the run stops here"
	case m.Update && p.EverySteps > 0 && m.Step > 0 && m.Step%p.EverySteps == 0:
		return fmt.Sprintf("every %d steps", p.EverySteps)
	}
	return ""
}

// Writes tells whether a rank is among those who write.
func (p Policy) Writes(rank int) bool { return rank >= 0 && rank < p.Replicas }

// Victims tells which of the transitions on a disk go, now that saved has been
// written: all that are older than the Keep newest up to saved. What is newer
// than saved is neither counted nor touched. It belongs to a process that is
// ahead, or it is a damaged one that was passed over at the start; either way
// the one just written, which is known to be good, stays.
func (p Policy) Victims(transitions []uint64, saved uint64) []uint64 {
	if p.Keep <= 0 {
		return nil
	}
	older := slices.DeleteFunc(slices.Clone(transitions), func(t uint64) bool { return t > saved })
	slices.Sort(older)
	older = slices.Compact(older)
	return older[:max(0, len(older)-p.Keep)]
}
