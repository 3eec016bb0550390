package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/train"
)

func TestTheResultIsWhatAllFinishedNodesHave(t *testing.T) {
	a := train.Result{Finished: true, Step: 9, ModelSHA256: "m", StateSHA256: "s", Checkpoint: "dir"}
	b := a
	b.Checkpoint = ""
	left := train.Result{Step: 4, ModelSHA256: "other"}
	got, err := agree(map[string]*train.Result{"node-1": &a, "node-2": &b, "node-3": &left})
	if err != nil || got == nil || got.ModelSHA256 != "m" || got.Checkpoint != "dir" {
		t.Errorf("agree: %+v, %v", got, err)
	}
	got, err = agree(map[string]*train.Result{"node-3": &left})
	if err != nil || got != nil {
		t.Errorf("agree without a finished node: %+v, %v", got, err)
	}
}

func TestADisagreementNamesWhoDiffers(t *testing.T) {
	a := train.Result{Finished: true, Step: 9, ModelSHA256: "m", StateSHA256: "s"}
	b := a
	b.StateSHA256 = "odd"
	_, err := agree(map[string]*train.Result{"node-1": &b, "node-2": &a, "node-3": &a})
	want := "the nodes do not agree on the result:\n" +
		"  node-2, node-3: step 9, model m, state s\n" +
		"  node-1: step 9, model m, state odd"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestAFailureTellsTheSameWordsOnceAndTheCommonStatus(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	text := "time=1 msg=hello\ndlnode: an older one\ntime=2 msg=hello\ndlnode: bad things:\n  first\n  second\n"
	if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	bad := func(id string, status int, log string) supervise.Report {
		return supervise.Report{ID: id, Outcome: supervise.Lost, Starts: 1, Last: supervise.Exit{Status: status}, Log: log}
	}
	said := func(id string) *train.Result {
		if id == "node-3" {
			return &train.Result{Error: "its own words"}
		}
		return nil
	}
	err := failure([]supervise.Report{bad("node-1", 4, log), bad("node-2", 4, log), bad("node-3", 4, "")}, said)
	want := "no node finished:\n" +
		"  node-1, node-2: exited with status 4: bad things:\n  first\n  second\n" +
		"  node-3: its own words"
	f := (*Failure)(nil)
	if !errors.As(err, &f) || f.Text != want || f.Status != 4 {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = failure([]supervise.Report{bad("node-1", 4, ""), bad("node-2", 2, "")}, said)
	if !errors.As(err, &f) || f.Status != 1 {
		t.Errorf("different statuses: %v", err)
	}
}

func TestLeavingInOrderIsNoFailure(t *testing.T) {
	nobody := func(string) *train.Result { return nil }
	lost := supervise.Report{ID: "node-1", Outcome: supervise.Lost, Starts: 1, Last: supervise.Exit{Signal: "killed"}}
	left := supervise.Report{ID: "node-2", Outcome: supervise.Left, Starts: 1}
	never := supervise.Report{ID: "node-3", Outcome: supervise.Left}
	if err := failure([]supervise.Report{lost, left, never}, nobody); err != nil {
		t.Error(err)
	}
	left.Last = supervise.Exit{Signal: "killed"} // it was not to be waited for
	err := failure([]supervise.Report{lost, left, never}, nobody)
	if err == nil || !strings.HasSuffix(err.Error(), "\n  node-1, node-2: ended by signal: killed") {
		t.Errorf("killed while leaving: %v", err)
	}
}

func TestACrashIsShownFromItsFirstLine(t *testing.T) {
	log := "time=1 msg=x\npanic: no way\n\n" + strings.Repeat("goroutine\n", 100)
	if got := endOf(log); !strings.HasPrefix(got, "panic: no way\n") || strings.Count(got, "\n") >= maxWords {
		t.Errorf("got %q", got)
	}
	if got := endOf("one\ntwo\n\n"); got != "two" {
		t.Errorf("got %q, want the last line", got)
	}
	if got := endOf(""); got != "" {
		t.Errorf("got %q of an empty log", got)
	}
}
