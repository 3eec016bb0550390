package train

import "testing"

func TestMemoryIsWhatIsHeld(t *testing.T) {
	task := simTask(t)
	f := newFitter(t.Context(), task, 3, nil)
	defer f.pool.close()
	if _, err := f.run(); err != nil {
		t.Fatal(err)
	}
	m := task.Memory()
	if got, want := f.pool.engine.Bytes(), m.Sum+3*m.Worker; got != want {
		t.Errorf("the engine holds %d bytes, want %d", got, want)
	}
	held := func(s *State) (n int64) {
		for _, v := range append(s.slots[:len(s.slots):len(s.slots)], s.params, s.best) {
			n += int64(4 * len(v))
		}
		return n
	}
	if got := held(f.node.state); got != m.State {
		t.Errorf("the state holds %d bytes, want %d", got, m.State)
	}
	if got := held(f.node.spare); got != m.Copy {
		t.Errorf("its copy holds %d bytes, want %d", got, m.Copy)
	}
	if got := int64(4 * len(task.start.params)); got != m.Start {
		t.Errorf("the start holds %d bytes, want %d", got, m.Start)
	}
	if got := m.Total(2) - m.Total(1); got != m.Worker {
		t.Errorf("a second thread takes %d bytes, want %d", got, m.Worker)
	}
}
