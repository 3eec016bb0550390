package train

// Memory is what a node takes in training, in bytes, without its data set and what
// the program itself needs. For P parameters and an optimizer with k slots:
//
//	State   4·P·(1+k)   parameters and slots, and 4·P for the best weights, if they are kept
//	Start   4·P         the parameters of the start; its slots are zeros that nobody has touched, but for a fork's
//	Copy    as State    for the writer of checkpoints, from the first one on
//	Sum     8·P         the integers of all microbatches of the node, on their way through the all-reduce
//	Next    4·P·(1+k)   parameters and slots as an update makes them that begins before all of its gradient is there, and 4·P
//	                    for optimizers that write in it; given back where that makes steps no faster
//	Mean    4·P         the mean gradient, which comes while workers still compute
//	Worker  4·P         a gradient, the microbatch on its way through the layers, and the next one's samples
//
// While a node joins, the member that it copies the state from keeps another Copy, and
// it and up to seven others keep records of up to three times the State, at least 64 MiB.
//
// A link to a process of the same machine has a MiB of shared memory for each direction, which the system counts
// to whoever has taken it.
//
// There is a Worker for each thread. Fit, which has nobody to wait for, needs no Next and no Mean:
// that lies where the first one's gradient was.
type Memory struct{ State, Start, Copy, Sum, Next, Mean, Worker int64 }

// Memory tells what a node takes.
func (t *Task) Memory() Memory {
	p := int64(t.Model.NumParams())
	m := Memory{State: 4 * p * int64(1+len(t.Optimizer.Slots())), Start: 4 * p, Sum: 8 * p, Mean: 4 * p}
	if es := t.Job.EarlyStopping; es != nil && es.RestoreBest {
		m.State += 4 * p
	}
	m.Copy = m.State
	if m.Next = 4 * p * int64(1+len(t.Optimizer.Slots())); t.Optimizer.Spends() {
		m.Next += 4 * p
	}
	if !t.Optimizer.ByPieces() {
		m.Next = 0
	}
	m.Worker = 4*p + 2*newSamples(t).bytes() + int64(t.Model.NewWorkspace(t.Plan.Micro).Bytes())
	return m
}

// Total is all of it but Next, which a node takes only with others, with so many threads.
func (m Memory) Total(threads int) int64 {
	return m.State + m.Start + m.Copy + m.Sum + m.Mean + int64(threads)*m.Worker
}
