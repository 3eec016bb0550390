package train

import "time"

// Line is what a node tells the process that started it, one JSON object a line
// on standard output. Exactly one field is set.
type Line struct {
	Ready    *Ready    `json:"ready,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Event    *Event    `json:"event,omitempty"`
	Result   *Result   `json:"result,omitempty"`
}

// Ready tells that a node listens, and where.
type Ready struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	PID         int    `json:"pid"`
	GRPC        string `json:"grpc"`   // host:port; what status asks
	Gossip      string `json:"gossip"` // host:port; what --join takes
	Trajectory  string `json:"trajectory"`
}

// Value is a loss or a metric.
type Value struct {
	Name  string `json:"name"` // as in job files: "loss", "val_accuracy"
	Value Number `json:"value"`
}

// Progress is where a run is, seen from one node.
type Progress struct {
	Node        string  `json:"node"`
	Coordinator string  `json:"coordinator"` // whom this node takes for it
	Generation  uint64  `json:"generation"`
	World       int     `json:"world"` // members of the running view, 0 while none runs
	Transition  uint64  `json:"transition"`
	Step        uint64  `json:"step"`  // done
	Steps       uint64  `json:"steps"` // of the whole job; those done, once it has stopped early
	Epoch       int     `json:"epoch"` // in hand, from 1
	Epochs      int     `json:"epochs"`
	Samples     uint64  `json:"samples"` // trained on since step 0, by all nodes together
	Values      []Value `json:"values"`  // of this epoch so far, then the last validation
	Waiting     string  `json:"waiting,omitempty"`
}

// Result is how a node's run ended.
type Result struct {
	Node        string      `json:"node"`
	Finished    bool        `json:"finished"` // the state is final
	Reason      string      `json:"reason"`
	Error       string      `json:"error,omitempty"`
	Transition  uint64      `json:"transition"`
	Step        uint64      `json:"step"`
	ModelSHA256 string      `json:"model_sha256"` // of model.safetensors
	StateSHA256 string      `json:"state_sha256"` // of the whole state
	Checkpoint  string      `json:"checkpoint,omitempty"`
	Scalars     []string    `json:"scalars"` // names of the columns of History
	History     []Epoch     `json:"history"`
	Repeats     uint64      `json:"repeated_attempts"`
	Phases      PhaseMillis `json:"phases_ms"` // as in Status
}

// Status is what a node answers to anyone who asks.
type Status struct {
	Ready
	Job        string         `json:"job"`
	State      string         `json:"state"` // starting waiting copying training evaluating finished
	Progress   Progress       `json:"progress"`
	View       string         `json:"view"` // name of the running view, in hex
	Members    []MemberStatus `json:"members"`
	Others     []MemberStatus `json:"others"` // known, living, not in the view
	Rate       float64        `json:"samples_per_second"`
	Phases     PhaseMillis    `json:"phases_ms"` // mean per step, of this process
	Ahead      string         `json:"ahead"`     // when updates are made, and why
	Counters   Counters       `json:"counters"`
	CPUSeconds float64        `json:"cpu_seconds"` // of this process since it began; 0 where the system doesn't tell
	Allocated  uint64         `json:"allocated"`   // objects of the heap, likewise
	Events     []Event        `json:"events"`      // the last ones, oldest first
	Since      time.Time      `json:"since"`
	History    []Epoch        `json:"history"`
	Scalars    []string       `json:"scalars"`
	Checkpoint string         `json:"checkpoint,omitempty"` // the newest this node wrote
	Goroutines int            `json:"goroutines"`           // of the process: more and more would be a leak
}

// MemberStatus is one row of the table of members.
type MemberStatus struct {
	Node        string  `json:"node"`
	Addr        string  `json:"addr"`
	Zone        string  `json:"zone,omitempty"`
	Rank        int     `json:"rank"` // -1 outside the view
	Role        string  `json:"role"` // coordinator, worker, joining, leaving
	Transition  uint64  `json:"transition"`
	Entry       uint64  `json:"entry"` // generation in which it became a member
	Speed       float64 `json:"samples_per_second"`
	Self        bool    `json:"self,omitempty"`
	Incarnation uint64  `json:"incarnation"`
}

// PhaseMillis is where a step's time goes, in milliseconds: Compute, Reduce and Update
// are all of it, one after the other.
type PhaseMillis struct {
	Data    float64 `json:"data"`    // waiting for samples, within compute, in the mean of the threads that compute
	Read    float64 `json:"read"`    // reading and changing samples, ahead of the threads that compute or by them, summed over all who do
	Compute float64 `json:"compute"` // data, forward, backward, rounding
	Round   float64 `json:"round"`   // rounding to the grids and adding, summed over workers, within compute
	Reduce  float64 `json:"reduce"`  // the ring, and waiting for the slowest
	Update  float64 `json:"update"`  // checking, applying, and what else is done between two steps
	Stall   float64 `json:"stall"`   // mean copy for a checkpoint; not per step
}

// Waiting is the share of a step that went by waiting for samples, from 0 to 1.
func (p PhaseMillis) Waiting() float64 {
	if step := p.Compute + p.Reduce + p.Update; step > 0 {
		return p.Data / step
	}
	return 0
}

// Counters of this process' life.
type Counters struct {
	Steps       uint64 `json:"steps"`
	Views       uint64 `json:"views"`
	Lost        uint64 `json:"lost"` // groups that ended for a fault
	Repeats     uint64 `json:"repeated_attempts"`
	Interrupted uint64 `json:"interrupted_attempts"` // done again after a fault
	Checkpoints uint64 `json:"checkpoints"`
	SaveErrors  uint64 `json:"checkpoint_errors"`
	BytesIn     uint64 `json:"bytes_in"`
	BytesOut    uint64 `json:"bytes_out"`
}
