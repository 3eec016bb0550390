package train

import (
	"errors"
	"strings"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
)

// link gives a group of package rpc, whose notes know no Ending, the form of a
// Link: the ending stands before the reason.
type link struct{ *rpc.Group }

var endingMarks = map[allreduce.Ending]string{allreduce.Orderly: "[orderly] ", allreduce.Fatal: "[fatal] "}

func (l link) Close(ending allreduce.Ending, blame, reason string) {
	l.Group.Close(blame, endingMarks[ending]+reason)
}

func noteOf(self, blame string, err error) allreduce.ClosingNote {
	note := allreduce.ClosingNote{By: self, Reason: err.Error()}
	if ended := (*rpc.Ended)(nil); errors.As(err, &ended) {
		note = ended.Note
	}
	note.Blame = blame
	note.Reason = strings.TrimPrefix(note.Reason, "lost "+blame+": ")
	for ending, mark := range endingMarks {
		if reason, ok := strings.CutPrefix(note.Reason, mark); ok {
			note.Ending, note.Reason = ending, reason
		}
	}
	return note
}
