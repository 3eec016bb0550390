package train

import "testing"

// TestAJobThatStoppedEarlyHasNoFurtherEpoch holds the last progress of a run to the
// epoch that was its last, with nothing left to do.
func TestAJobThatStoppedEarlyHasNoFurtherEpoch(t *testing.T) {
	task := simTask(t)
	perEpoch, total := task.StepsPerEpoch(), task.TotalSteps()
	for _, tc := range []struct {
		epochs int // done
		next   Kind
		epoch  int
		steps  uint64
	}{
		{0, Update, 1, total},
		{3, Evaluate, 3, total},
		{3, Update, 4, total},
		{3, Restore, 3, 3 * perEpoch},
		{3, Finish, 3, 3 * perEpoch},
		{3, Done, 3, 3 * perEpoch},
		{task.Job.Epochs, Done, task.Job.Epochs, total},
	} {
		s := task.Start()
		s.Next, s.Step, s.History = tc.next, uint64(tc.epochs)*perEpoch, make([]Epoch, tc.epochs)
		if epoch, steps := task.place(s); epoch != tc.epoch || steps != tc.steps {
			t.Errorf("%d epochs done, %s next: epoch %d of a job of %d steps, want %d of %d",
				tc.epochs, tc.next, epoch, steps, tc.epoch, tc.steps)
		}
	}
}
