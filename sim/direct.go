package sim

import (
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// What Cluster.hook sees, beside what a Host gives to its World as it is: facts,
// frames, attempts, ops, endings, snapshots, what was committed. Whoever kills the
// life in the hook keeps what it sees from happening.
type (
	// letter is a message on its way out.
	letter struct {
		addr string
		view.Msg
	}
	// receipt is a message that has come.
	receipt struct {
		from *life
		sent time.Duration
		view.Msg
	}
	// ping is a question whether a life of a node lives.
	ping struct {
		addr        string
		incarnation uint64
	}
	// gift is a state that a donor begins to send.
	gift struct{ bytes int }
	// loan is a piece that a donor begins to send: of its state, or of records.
	loan struct {
		bytes      int
		state      bool
		transition uint64 // asked for
	}
	// reduced is what a ring says of an op's totals, on its way to the Host: as *reduced.
	reduced struct{ total uint64 }
)
