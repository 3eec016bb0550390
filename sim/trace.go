package sim

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// trace is what happened, for people. It is off while seeds are tried: the same
// seed again, with the trace on, is the same history.
type trace struct {
	on     bool
	lines  []string
	faults []string
}

func (t *trace) logf(now time.Duration, who, format string, args ...any) {
	if t.on {
		t.lines = append(t.lines, fmt.Sprintf("%9.4f  %-9s %s", now.Seconds(), who, fmt.Sprintf(format, args...)))
	}
}

// fault notes a fault that was drawn.
func (t *trace) fault(kind string) { t.faults = append(t.faults, kind) }

func viewText(v *view.View) string {
	var names []string
	for _, m := range v.Members {
		names = append(names, fmt.Sprintf("%s#%d", m.ID, m.Incarnation))
	}
	return fmt.Sprintf("view %s, generation %d of %s", v.Name(), v.Generation, strings.Join(names, " "))
}

// msgText says in words what a message says.
func msgText(m view.Msg) string {
	switch {
	case m.Propose != nil:
		return "Propose(" + viewText(m.Propose) + ")"
	case m.Change != nil:
		return fmt.Sprintf("Change(to view %s, generation %d)", m.Change.View, m.Change.Generation)
	case m.Ask != nil:
		return fmt.Sprintf("Ask(view %s)", m.Ask.View)
	case m.Hold != nil:
		return fmt.Sprintf("Hold(view %s)", m.Hold.View)
	case m.Ack != nil:
		return fmt.Sprintf("Ack(view %s, at transition %d)", m.Ack.View, m.Ack.Transition)
	case m.Refuse != nil:
		return fmt.Sprintf("Refuse(view %s: %s)", m.Refuse.View, m.Refuse.Reason)
	case m.Start != nil:
		return fmt.Sprintf("Start(view %s, from transition %d)", m.Start.View, m.Start.Transition)
	case m.Stop != nil:
		return fmt.Sprintf("Stop(view %s: %s)", m.Stop.View, m.Stop.Reason)
	}
	return "Hello"
}

// stack is where a panic came from, without the simulator's own frames above it.
func stack() string { return string(debug.Stack()) }
